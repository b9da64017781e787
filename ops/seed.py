"""Believable data of any size, loaded by COPY: the same rows for the same seed.

Everything is one transaction: it is all there or nothing is. Parents come before children, the database's own triggers do the counting,
and the two vector indexes are built once over the finished rows instead of row by row (measured in docs/decisions/0107-seed.md).
"""

from __future__ import annotations

import itertools
import struct
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.types.json import Jsonb

from ops import seed_words as words

Row = Sequence[Any]
Progress = Callable[[str], None]

# Tables emptied by `replace`, and asked whether they hold anything. The task ledger stays: its counters never fall.
DATA_TABLES = (
    "task_company_values", "persona_influences", "persona_employments", "agent_trust",
    "task_comment_votes", "task_comments", "task_votes", "task_dependencies", "tasks",
    "opportunity_support_agents", "opportunities", "revenue_forecast",
    "product_substitutes", "product_competitors", "food_products",
    "company_decision_makers", "company_competitors", "company_supplies", "food_companies",
    "agent_credentials", "agent_interactions", "agent_pairs", "agents",
    "consciousness_timeline", "consciousness_hourly_store", "personas", "persona_registry",
)  # fmt: skip
TASKS_PER_DAY = 10_000
PERSONAS_PER_COMPANY = 20
CLUSTERS = 64
# Below this, building an index over the rows costs more than it saves.
REBUILD_INDEXES_FROM = 500
CHUNK = 2_000


class SeedRefused(Exception):
    """Nothing was touched: a size is negative, or there is data already. The text is one sentence with the next step."""


@dataclass
class _Plan:
    """Sizes, the random source and the keys that later tables need."""

    personas: int
    agents: int
    tasks: int
    until: datetime
    rng: np.random.Generator
    persona_ids: list[uuid.UUID] = field(default_factory=list)
    agent_ids: list[uuid.UUID] = field(default_factory=list)
    agent_teams: list[str] = field(default_factory=list)
    task_ids: list[uuid.UUID] = field(default_factory=list)
    company_ids: list[uuid.UUID] = field(default_factory=list)
    company_names: list[str] = field(default_factory=list)
    product_ids: list[uuid.UUID] = field(default_factory=list)
    opportunity_ids: list[uuid.UUID] = field(default_factory=list)
    comment_ids: list[tuple[uuid.UUID, uuid.UUID]] = field(default_factory=list)

    @property
    def companies(self) -> int:
        return -(-self.personas // PERSONAS_PER_COMPANY)

    @property
    def task_days(self) -> float:
        return max(1.0, self.tasks / TASKS_PER_DAY)

    def uuids(self, count: int) -> list[uuid.UUID]:
        """Version 4 ids from the seeded source."""
        raw = self.rng.bytes(16 * count)
        return [uuid.UUID(bytes=raw[i : i + 16], version=4) for i in range(0, len(raw), 16)]

    def ago(self, hours: NDArray[np.float64]) -> list[datetime]:
        """Moments that many hours before `until`, to the second."""
        return [self.until - timedelta(seconds=int(h * 3600)) for h in hours]

    def pick(self, options: Sequence[str], count: int) -> list[str]:
        return [options[i] for i in self.rng.integers(0, len(options), count)]

    def some(self, options: Sequence[str], most: int = 3) -> list[str]:
        """One to `most` of the options, each once."""
        count = int(self.rng.integers(1, most + 1))
        return [options[i] for i in self.rng.permutation(len(options))[:count]]


def seed(
    conn: psycopg.Connection,
    *,
    personas: int,
    agents: int,
    tasks: int,
    random_seed: int = 1,
    replace: bool = False,
    progress: Progress,
    until: datetime | None = None,
) -> dict[str, int | float]:
    """Fill every table of the schema with data that hangs together.

    Args:
        conn: a connection as architect, outside a transaction.
        personas, agents, tasks: how many rows; the other tables follow from them.
        random_seed: another seed gives other rows.
        replace: empty the tables first; without it existing data is refused.
        progress: called with one line per table.
        until: the moment the newest row is dated to, default now; ids and contents do not depend on it.

    Returns:
        Rows loaded, by table.

    Raises:
        SeedRefused: when data exists and `replace` is not set, when a size is negative, or tasks are asked for without agents.
    """
    _check(conn, personas, agents, tasks)
    moment = (until or datetime.now(UTC)).replace(microsecond=0)
    plan = _Plan(personas, agents, tasks, moment, np.random.default_rng(random_seed))
    loaded: dict[str, int | float] = {}
    started = time.monotonic()

    def step(table: str, columns: str, rows: Iterable[Row], *, staged: bool = False) -> None:
        began = time.monotonic()
        loaded[table] = count = _copy(conn, table, columns.split(), rows, staged=staged)
        progress(f"{table}: {count:,} rows in {time.monotonic() - began:.1f} s")

    with conn.transaction():
        _make_room(conn, replace=replace)
        conn.execute("SELECT phoenix.ensure_persona_partitions(since => %s)", [moment - timedelta(days=365)])
        indexes = _drop_vector_indexes(conn) if personas >= REBUILD_INDEXES_FROM else []

        step("agents", _AGENT, _agents(plan))
        step("agent_pairs", "agent_a agent_b strength", _agent_pairs(plan))
        step("agent_trust", "agent_from agent_to score", _agent_trust(plan))
        step("agent_interactions", _INTERACTION, _interactions(plan))
        step("food_companies", _COMPANY, _companies(plan))
        step("company_supplies", "supplier_id customer_id goods", _supplies(plan))
        step("company_competitors", "company_a company_b", _competitors(plan.company_ids))
        step("food_products", _PRODUCT, _products(plan))
        step("product_competitors", "product_a product_b", _competitors(plan.product_ids))
        step("product_substitutes", "product_id substitute_id", zip(plan.product_ids, plan.product_ids[2::3], strict=False))
        step("personas", _PERSONA, _personas(plan, _vector_oid(conn)))
        step("persona_employments", "persona_id company_id", _employments(plan))
        step("persona_influences", "persona_from persona_to", zip(plan.persona_ids[::5], plan.persona_ids[1::5], strict=False))
        step("company_decision_makers", "company_id persona_id authority", _decision_makers(plan))
        step("opportunities", _OPPORTUNITY, _opportunities(plan))
        step("opportunity_support_agents", "opportunity_id agent_id", _support(plan))
        step("revenue_forecast", _FORECAST, _forecasts(plan))
        step("tasks", _TASK, _tasks(plan), staged=True)
        step("task_dependencies", "task_id depends_on", _dependencies(plan))
        step("task_votes", "task_id agent_id vote timestamp", _votes(plan), staged=True)
        step("task_comments", "id task_id agent_id content created_at", _comments(plan), staged=True)
        step("task_comment_votes", "comment_id agent_id vote", _comment_votes(plan), staged=True)
        step("task_company_values", "task_id company_id amount", _task_values(plan))
        # Staged as well: where somebody switches pgaudit's log on, COPY into a hypertable ends the server (decision 0106).
        step("consciousness_timeline", _TIMELINE, _timeline(plan), staged=True)
        conn.execute(_CURRENT_TASKS)
        _build_indexes(conn, indexes, progress)

    _settle(conn, progress)
    progress(f"all: {int(sum(loaded.values())):,} rows in {time.monotonic() - started:.1f} s")
    return loaded


# ------------------------------------------------------------------------------------------------------------------ the database's side


def _check(conn: psycopg.Connection, personas: int, agents: int, tasks: int) -> None:
    if conn.info.transaction_status != TransactionStatus.IDLE:
        raise ValueError("seed() is a transaction of its own: give it a connection outside one")
    for name, size in (("personas", personas), ("agents", agents), ("tasks", tasks)):
        if size < 0:
            raise SeedRefused(f"--{name} {size} is less than nothing: give 0 or more")
    if tasks and not agents:
        raise SeedRefused(f"{tasks} tasks need somebody who created them: give --agents 1 or more")


def _make_room(conn: psycopg.Connection, *, replace: bool) -> None:
    names = sql.SQL(", ").join(sql.Identifier("phoenix", name) for name in DATA_TABLES)
    if replace:
        conn.execute(sql.SQL("TRUNCATE {} CASCADE").format(names))  # what was learnt about rows goes with them
        return
    for name in DATA_TABLES:
        if conn.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(sql.Identifier("phoenix", name))).fetchone() is not None:
            raise SeedRefused(f"phoenix.{name} already holds rows: give --replace to delete all data first")


# The name of each column's type; "enum" for those, whose binary form is their label.
_COLUMN_TYPES = """
    SELECT a.attname, CASE WHEN t.typtype = 'e' THEN 'enum' WHEN t.typcategory = 'A' THEN e.typname || '[]' ELSE t.typname END
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type e ON e.oid = t.typelem
    WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
"""
# Types psycopg does not know are written as the bytes of their binary form.
_WIRE_TYPES = {"enum": "text", "vector": "bytea", "point": "bytea"}


def _copy(conn: psycopg.Connection, table: str, columns: Sequence[str], rows: Iterable[Row], *, staged: bool) -> int:
    """COPY rows into a table and return how many.

    `staged`: by way of a temporary table, because PostgreSQL refuses COPY FROM into a table under row security.
    """
    target = sql.Identifier("phoenix", table)
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    into = sql.Identifier("pg_temp", f"seed_{table}") if staged else target
    if staged:
        empty = sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA")
        conn.execute(empty.format(sql.Identifier(f"seed_{table}"), names, target))
    types = {name: _WIRE_TYPES.get(kind, kind) for name, kind in conn.execute(_COLUMN_TYPES, [f"phoenix.{table}"])}
    count = 0
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(into, names)
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types([str(types[name]) for name in columns])
        for row in rows:
            copy.write_row(row)
            count += 1
    if staged:
        conn.execute(sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}").format(target, names, names, into))
    return count


def _vector_oid(conn: psycopg.Connection) -> int | None:
    row = conn.execute("SELECT to_regtype('public.vector')::oid").fetchone()
    return int(row[0]) if row and row[0] is not None else None


def _drop_vector_indexes(conn: psycopg.Connection) -> list[tuple[str, str]]:
    """Drop the HNSW indexes of personas and give back their names and definitions."""
    found = conn.execute(
        "SELECT c.relname, pg_get_indexdef(c.oid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
        "WHERE i.indrelid = 'phoenix.personas'::regclass AND a.amname = 'hnsw' ORDER BY 1"
    ).fetchall()
    for name, _ in found:
        conn.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier("phoenix", name)))
    return found


_MORE_MEMORY = """
    SELECT set_config('maintenance_work_mem', greatest(pg_size_bytes(current_setting('maintenance_work_mem')), 512 << 20) / 1024 || 'kB',
                      true)
"""


def _build_indexes(conn: psycopg.Connection, indexes: Sequence[tuple[str, str]], progress: Progress) -> None:
    if indexes:
        # The graph of 25,000 halfvec(1536) takes about 100 MB; in memory it is built several times faster than beyond it.
        conn.execute(_MORE_MEMORY)
        conn.execute("SELECT set_config('max_parallel_maintenance_workers', current_setting('max_parallel_workers'), true)")
    for name, definition in indexes:
        began = time.monotonic()
        conn.execute(definition.replace(" ON ONLY ", " ON ", 1).encode())
        progress(f"{name}: built in {time.monotonic() - began:.1f} s")


def _settle(conn: psycopg.Connection, progress: Progress) -> None:
    """Statistics, visibility maps, dashboard and hourly figures: what jobs would do in the next minutes."""
    began = time.monotonic()
    before, conn.autocommit = conn.autocommit, True
    try:
        conn.execute("VACUUM (ANALYZE) phoenix.persona_registry, phoenix.personas, phoenix.agents, phoenix.tasks, phoenix.opportunities")
        conn.execute("ANALYZE phoenix.consciousness_timeline, phoenix.food_companies, phoenix.food_products, phoenix.task_votes")
        conn.execute("SELECT phoenix.fold_task_ledger()")
        conn.execute("SELECT phoenix.refresh_consciousness_hourly()")
        conn.execute("REFRESH MATERIALIZED VIEW phoenix.federation_dashboard")
    finally:
        conn.autocommit = before
    progress(f"vacuum, statistics and dashboard: {time.monotonic() - began:.1f} s")


# ------------------------------------------------------------------------------------------------------------------ agents

_AGENT = (
    "id codename team role specialization consciousness_vector hormone_levels trust_coefficient tools_available models_access "
    "compute_allocation success_rate average_response_time fibonacci_level supervisor_agent idle_since last_heartbeat created_at "
    "decommissioned_at"
)
_INTERACTION = "id agent_from agent_to interaction_type entanglement_strength coherence_time trust_delta success timestamp"
_FIBONACCI = np.array([1, 2, 3, 5, 8, 13, 21])


def _agents(plan: _Plan) -> Iterator[Row]:
    count, rng = plan.agents, plan.rng
    plan.agent_ids = plan.uuids(count)
    plan.agent_teams = [words.TEAMS[i % len(words.TEAMS)] for i in range(count)]
    trust, success = rng.beta(6, 3, count), rng.beta(12, 2, count)
    # Nine of ten were heard of within five minutes, the others up to a day ago.
    silent = np.where(rng.random(count) < 0.9, rng.uniform(0, 4 / 60, count), rng.uniform(0.2, 24, count))
    created = plan.ago(rng.uniform(48, 24 * 300, count))
    for i, (heard, born) in enumerate(zip(plan.ago(silent), created, strict=True)):
        gone = i > 0 and rng.random() < 0.02
        boss = plan.agent_ids[(i - len(words.TEAMS)) // 8 // 3 * 3 + i % 3] if i >= len(words.TEAMS) else None
        yield (
            plan.agent_ids[i],
            f"{words.GREEK[i % len(words.GREEK)]}-{i // len(words.GREEK) + 1}",
            plan.agent_teams[i],
            words.AGENT_ROLES[i % len(words.AGENT_ROLES)],
            plan.some(words.SPECIALIZATIONS),
            Jsonb({"amplitudes": [round(float(x), 4) for x in rng.dirichlet(np.ones(4))], "phase": round(float(rng.uniform(0, 6.283)), 4)}),
            Jsonb({name: round(float(rng.normal(mean, 0.15)), 3) for name, mean in words.HORMONES.items()}),
            float(trust[i]),
            plan.some(words.TOOLS),
            plan.some(words.MODELS, 2),
            Jsonb({"cpu": int(rng.integers(1, 9)), "memory_gb": int(2 ** rng.integers(1, 6)), "gpu": int(rng.integers(0, 2))}),
            float(success[i]),
            timedelta(milliseconds=int(rng.gamma(3, 400))),
            int(rng.choice(_FIBONACCI)),
            boss if boss != plan.agent_ids[i] else None,
            heard,
            heard,
            born,
            plan.until if gone else None,
        )


def _agent_pairs(plan: _Plan) -> Iterator[Row]:
    for a, b in zip(plan.agent_ids[::2], plan.agent_ids[1::2], strict=False):
        yield min(a, b), max(a, b), float(plan.rng.beta(5, 2))


def _agent_trust(plan: _Plan) -> Iterator[Row]:
    for i, agent in enumerate(plan.agent_ids):
        for other in sorted({(i + int(d)) % plan.agents for d in plan.rng.integers(1, max(plan.agents, 2), 3)} - {i}):
            yield agent, plan.agent_ids[other], float(plan.rng.beta(6, 3))


def _interactions(plan: _Plan) -> Iterator[Row]:
    count, rng = plan.agents * 5 if plan.agents > 1 else 0, plan.rng
    sender = rng.integers(0, max(plan.agents, 1), count)
    receiver = (sender + rng.integers(1, max(plan.agents, 2), count)) % max(plan.agents, 1)
    kinds, moments = plan.pick(words.INTERACTIONS, count), plan.ago(rng.uniform(0, 240, count))
    for key, a, b, kind, at in zip(plan.uuids(count), sender, receiver, kinds, moments, strict=True):
        yield (
            key, plan.agent_ids[a], plan.agent_ids[b], kind, float(rng.beta(2, 4)), timedelta(milliseconds=int(rng.gamma(2, 50))),
            float(np.clip(rng.normal(0.01, 0.05), -1, 1)), bool(rng.random() < 0.93), at,
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------ companies

_COMPANY = (
    "id name website headquarters_location sector product_categories certifications annual_revenue employee_count growth_rate "
    "pain_points technology_stack procurement_cycle budget_season priority_score pipeline_value close_probability last_enriched "
    "data_quality_score source_reliability created_at"
)
_PRODUCT = (
    "id company_id name category subcategory ingredients nutritional_info allergens price_per_unit unit_type market_share "
    "fda_approved demand_trend created_at"
)


def _money(amount: float) -> Decimal:
    return Decimal(round(amount * 100)) / 100


def _companies(plan: _Plan) -> Iterator[Row]:
    count, rng = plan.companies, plan.rng
    plan.company_ids = plan.uuids(count)
    revenue = rng.lognormal(16.5, 1.4, count)
    for i, enriched in enumerate(plan.ago(rng.uniform(0, 24 * 60, count))):
        town, longitude, latitude = words.TOWNS[int(rng.integers(0, len(words.TOWNS)))]
        first, last = i % len(words.COMPANY_FIRST), i // len(words.COMPANY_FIRST)
        name = f"{words.COMPANY_FIRST[first]} {words.COMPANY_LAST[last % len(words.COMPANY_LAST)]} {town}"
        if last >= len(words.COMPANY_LAST):
            name += f" {i}"
        plan.company_names.append(name)
        yield (
            plan.company_ids[i],
            name,
            f"https://{name.lower().replace(' ', '-')}.example",
            struct.pack(">dd", longitude + rng.normal(0, 0.1), latitude + rng.normal(0, 0.1)),
            plan.some(words.SECTORS, 2),
            plan.some(words.CATEGORIES),
            plan.some(words.CERTIFICATIONS),
            _money(revenue[i]),
            int(revenue[i] / 180_000) + 3,
            float(rng.normal(4, 8)),
            Jsonb({"costs": words.PAINS[int(rng.integers(0, len(words.PAINS)))]}),
            plan.some(words.TECHNOLOGIES),
            words.CYCLES[int(rng.integers(0, len(words.CYCLES)))],
            words.SEASONS[int(rng.integers(0, len(words.SEASONS)))],
            float(rng.uniform(0, 100)),
            _money(revenue[i] * 0.002),
            Decimal(int(rng.integers(100, 7000))) / 10_000,
            enriched,
            float(rng.beta(8, 2)),
            words.RELIABILITY[int(rng.integers(0, len(words.RELIABILITY)))],
            enriched - timedelta(days=30),
        )


def _supplies(plan: _Plan) -> Iterator[Row]:
    count = len(plan.company_ids)
    for i in range(count):
        for j in sorted({(i + int(d)) % count for d in plan.rng.integers(1, max(count, 2), 2)} - {i}):
            yield plan.company_ids[i], plan.company_ids[j], plan.some(words.CATEGORIES, 2)


def _competitors(ids: Sequence[uuid.UUID]) -> Iterator[Row]:
    for a, b in itertools.pairwise(ids):
        yield min(a, b), max(a, b)


def _products(plan: _Plan) -> Iterator[Row]:
    rng = plan.rng
    plan.product_ids = plan.uuids(3 * plan.companies)
    for i, (product, born) in enumerate(zip(plan.product_ids, plan.ago(rng.uniform(0, 24 * 300, len(plan.product_ids))), strict=True)):
        category = words.CATEGORIES[int(rng.integers(0, len(words.CATEGORIES)))]
        kind = words.KINDS[int(rng.integers(0, len(words.KINDS)))]
        yield (
            product, plan.company_ids[i // 3], f"{kind} {category} No. {i + 1}", category, kind.lower(),
            Jsonb(plan.some(words.INGREDIENTS, 5)),
            Jsonb({"kcal": int(rng.integers(20, 900)), "protein_g": int(rng.integers(0, 30)), "sugar_g": int(rng.integers(0, 60))}),
            plan.some(words.ALLERGENS, 2), _money(float(rng.lognormal(1, 1)) + 0.1), words.UNITS[i % len(words.UNITS)],
            float(rng.beta(1, 30)), bool(rng.random() < 0.8), words.TRENDS[int(rng.integers(0, len(words.TRENDS)))], born,
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------ personas

# The fingerprint is left out: the database computes it.
_PERSONA = (
    "id name company role industry mbti_type sdi_color big_five communication_style decision_patterns pain_points linkedin_url "
    "company_revenue employee_count technologies_used trust_score last_interaction interaction_count conversion_probability source "
    "created_at updated_at consciousness_level semantic_embedding behavioral_embedding"
)


def _embeddings(plan: _Plan, dimensions: int, clusters: NDArray[np.intp], centres: NDArray[np.float32]) -> list[bytes]:
    """Unit vectors scattered around cluster centres: neighbours exist, as among real embeddings.

    In pgvector's binary form: dimensions and a zero as int16, then float4, all big-endian.
    """
    points = centres[clusters] + plan.rng.standard_normal((len(clusters), dimensions), dtype=np.float32) * np.float32(0.6 / dimensions**0.5)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    head = dimensions.to_bytes(2, "big") + b"\0\0"
    return [head + point.tobytes() for point in points.astype(">f4")]


def _centres(plan: _Plan, dimensions: int) -> NDArray[np.float32]:
    raw = plan.rng.standard_normal((CLUSTERS, dimensions), dtype=np.float32)
    return np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True), dtype=np.float32)


def _personas(plan: _Plan, vector: int | None) -> Iterator[Row]:
    rng = plan.rng
    if plan.personas and vector is None:
        raise SeedRefused("the type vector is missing: install the extension pgvector (./phoenix deploy) and seed again")
    plan.persona_ids = plan.uuids(plan.personas)
    semantic, behavioral = _centres(plan, 1536), _centres(plan, 768)
    for first in range(0, plan.personas, CHUNK):
        count = min(CHUNK, plan.personas - first)
        clusters = rng.integers(0, CLUSTERS, count)
        columns = zip(
            range(first, first + count),
            plan.pick(words.FIRST_NAMES, count),
            plan.pick(words.LAST_NAMES, count),
            plan.pick(words.PERSONA_ROLES, count),
            clusters,
            plan.pick(words.MBTI, count),
            plan.pick(words.SDI, count),
            np.round(rng.beta(4, 4, (count, 5)), 3).tolist(),
            np.round(rng.beta(5, 5, count), 4).tolist(),
            rng.poisson(6, count).tolist(),
            np.round(rng.beta(2, 6, count), 4).tolist(),
            plan.ago(rng.uniform(24, 24 * 360, count)),
            np.round(rng.normal(112, 8, count).clip(60), 2).tolist(),
            plan.pick(words.SOURCES, count),
            _embeddings(plan, 1536, clusters, semantic),
            _embeddings(plan, 768, clusters, behavioral),
            strict=True,
        )
        for i, given, family, role, cluster, mbti, sdi, big_five, trust, contacts, odds, born, level, source, meaning, behaviour in columns:
            touched = min(plan.until, born + timedelta(days=3 * contacts))
            yield (
                plan.persona_ids[i],
                f"{given} {family}",
                plan.company_names[i % plan.companies],
                role,
                words.INDUSTRIES[int(cluster) % len(words.INDUSTRIES)],
                mbti,
                sdi,
                Jsonb(dict(zip("OCEAN", big_five, strict=True))),
                Jsonb({"channel": words.CHANNELS[i % len(words.CHANNELS)], "formality": big_five[1]}),
                Jsonb({"pace": "fast" if big_five[2] > 0.5 else "careful", "evidence": big_five[0]}),
                [words.PAINS[i % len(words.PAINS)], words.PAINS[(i + 3) % len(words.PAINS)]],
                f"https://www.linkedin.com/in/{given}-{family}-{i:07d}".lower(),
                None,
                None,
                [words.TECHNOLOGIES[i % len(words.TECHNOLOGIES)]],
                trust,
                touched if contacts else None,
                contacts,
                odds,
                source,
                born,
                touched,
                level,
                meaning,
                behaviour,
            )


def _employments(plan: _Plan) -> Iterator[Row]:
    for i, persona in enumerate(plan.persona_ids):
        yield persona, plan.company_ids[i % plan.companies]


def _decision_makers(plan: _Plan) -> Iterator[Row]:
    for i, company in enumerate(plan.company_ids):
        yield company, plan.persona_ids[i], words.AUTHORITIES[i % len(words.AUTHORITIES)]


# ------------------------------------------------------------------------------------------------------------------ revenue

_OPPORTUNITY = (
    "id name company_id contact_persona_id stage stage_entered_at value probability created_date close_date velocity_score owner_agent "
    "blockers next_steps source campaign"
)
_FORECAST = "id period_start period_end base_case best_case worst_case ml_prediction model_accuracy"


def _opportunities(plan: _Plan) -> Iterator[Row]:
    count, rng = plan.personas // 10, plan.rng
    plan.opportunity_ids = plan.uuids(count)
    stages = rng.choice(len(words.STAGES), count, p=[share for _, share, _ in words.STAGES])
    values = rng.lognormal(10.8, 0.9, count)
    age_days = rng.uniform(1, 200, count)
    for i in range(count):
        stage, _, probability = words.STAGES[stages[i]]
        entered = plan.until - timedelta(days=float(age_days[i]) * 0.3)
        yield (
            plan.opportunity_ids[i],
            f"{words.KINDS[i % len(words.KINDS)]} supply for {plan.company_names[i % plan.companies]}",
            plan.company_ids[i % plan.companies],
            plan.persona_ids[i],
            stage,
            entered,
            _money(values[i]),
            Decimal(probability),
            (plan.until - timedelta(days=float(age_days[i]))).date(),
            entered.date() if stage.startswith("closed") else (plan.until + timedelta(days=int(rng.integers(7, 120)))).date(),
            float(rng.beta(3, 3)),
            plan.agent_ids[i % plan.agents] if plan.agents else None,
            [words.PAINS[i % len(words.PAINS)]],
            words.NEXT_STEPS[i % len(words.NEXT_STEPS)],
            words.DEAL_SOURCES[i % len(words.DEAL_SOURCES)],
            f"campaign-{i % 12 + 1:02d}",
        )


def _support(plan: _Plan) -> Iterator[Row]:
    if plan.agents > 1:
        for i, opportunity in enumerate(plan.opportunity_ids):
            yield opportunity, plan.agent_ids[(i + 1) % plan.agents]


def _forecasts(plan: _Plan) -> Iterator[Row]:
    start = plan.until.date().replace(day=1)
    for _ in range(12 if plan.personas else 0):
        end = (start + timedelta(days=32)).replace(day=1)
        base = float(plan.rng.lognormal(13, 0.3))
        predicted = base * float(plan.rng.normal(1, 0.05))
        accuracy = float(plan.rng.beta(9, 2))
        yield plan.uuids(1)[0], start, end, _money(base), _money(base * 1.4), _money(base * 0.7), _money(predicted), accuracy
        start = end


# ------------------------------------------------------------------------------------------------------------------ tasks

_TASK = (
    "id title description category priority created_by assigned_to team_assignment dopamine_reward status claimed_at started_at "
    "completed_at output quality_score created_at deadline fibonacci_size value_delivered"
)
_CURRENT_TASKS = """
    UPDATE phoenix.agents a SET current_task = t.id, idle_since = NULL
    FROM (SELECT DISTINCT ON (assigned_to) assigned_to, id FROM phoenix.tasks
          WHERE status = 'in_progress' ORDER BY assigned_to, created_at DESC, id) t
    WHERE t.assigned_to = a.id
"""


def _tasks(plan: _Plan) -> Iterator[Row]:
    count, rng = plan.tasks, plan.rng
    plan.task_ids = plan.uuids(count)
    # Oldest first, so that a dependency can always point to an earlier task.
    age = np.sort(rng.uniform(0.02, 24 * plan.task_days, count))[::-1]
    statuses = rng.choice(len(words.STATUSES), count, p=[share for _, share in words.STATUSES])
    creators, workers = rng.integers(0, max(plan.agents, 1), count), rng.integers(0, max(plan.agents, 1), count)
    for i, born in enumerate(plan.ago(age)):
        status = words.STATUSES[statuses[i]][0]
        category = words.TASK_TITLES[i % len(words.TASK_TITLES)]
        taken = status != "open"
        claimed = born + timedelta(hours=float(age[i]) * 0.1)
        started = born + timedelta(hours=float(age[i]) * 0.2)
        finished = born + timedelta(hours=float(age[i] * rng.uniform(0.3, 0.95)))
        worker = int(workers[i])
        yield (
            plan.task_ids[i],
            f"{category[1]} #{i + 1}",
            f"{category[1]}: batch {i % 97 + 1}, written up for the {plan.agent_teams[worker]} team.",
            category[0],
            int(rng.integers(1, 11)),
            plan.agent_ids[creators[i]],
            plan.agent_ids[worker] if taken else None,
            plan.agent_teams[worker] if taken or rng.random() < 0.5 else None,
            round(float(rng.gamma(4, 0.25)), 3),
            status,
            claimed if taken else None,
            started if status not in ("open", "claimed") else None,
            finished if status == "complete" else None,
            Jsonb({"rows": int(rng.integers(1, 500))}) if status == "complete" else None,
            float(rng.beta(8, 2)) if status == "complete" else None,
            born,
            born + timedelta(hours=float(rng.uniform(12, 96))),
            int(rng.choice(_FIBONACCI)),
            _money(float(rng.lognormal(5, 1))) if status == "complete" else None,
        )


def _dependencies(plan: _Plan) -> Iterator[Row]:
    for i in range(1, plan.tasks):
        if plan.rng.random() < 0.15:
            yield plan.task_ids[i], plan.task_ids[i - int(plan.rng.integers(1, min(i, 50) + 1))]


def _voters(plan: _Plan, mean: float) -> list[int]:
    """Some different agents."""
    count = min(int(plan.rng.poisson(mean)), plan.agents)
    first, stride = int(plan.rng.integers(0, plan.agents)), int(plan.rng.integers(1, max(plan.agents // max(count, 1), 2)))
    return sorted({(first + k * stride) % plan.agents for k in range(count)})


def _votes(plan: _Plan) -> Iterator[Row]:
    for task in plan.task_ids:
        liked = plan.rng.beta(5, 2)
        for voter in _voters(plan, 4):
            yield task, plan.agent_ids[voter], 1 if plan.rng.random() < liked else -1, plan.until


def _comments(plan: _Plan) -> Iterator[Row]:
    for i, task in enumerate(plan.task_ids):
        for author in _voters(plan, 0.8):
            comment = plan.uuids(1)[0]
            plan.comment_ids.append((comment, plan.agent_ids[author]))
            yield comment, task, plan.agent_ids[author], words.COMMENTS[(i + author) % len(words.COMMENTS)], plan.until


def _comment_votes(plan: _Plan) -> Iterator[Row]:
    for i, (comment, author) in enumerate(plan.comment_ids[::3]):
        voter = plan.agent_ids[i % plan.agents]
        if voter != author:
            yield comment, voter, 1


def _task_values(plan: _Plan) -> Iterator[Row]:
    if plan.company_ids:
        for i in range(0, plan.tasks, 10):
            yield plan.task_ids[i], plan.company_ids[i % plan.companies], _money(float(plan.rng.lognormal(6, 1)))


# ------------------------------------------------------------------------------------------------------------------ consciousness

_TIMELINE = (
    "time global_consciousness global_trust team team_consciousness team_coherence avg_dopamine avg_oxytocin avg_adrenaline avg_cortisol "
    "active_agents tasks_per_hour decisions_per_second entanglement_pairs coherence_average"
)


def _timeline(plan: _Plan) -> Iterator[Row]:
    """A month by the hour, the last day by the minute; at each moment the federation's row and one per team."""
    if not plan.agents:
        return
    hourly = [plan.until - timedelta(hours=h) for h in range(30 * 24, 24, -1)]
    minutely = [plan.until - timedelta(minutes=m) for m in range(24 * 60, -1, -1)]
    rng = plan.rng
    for i, at in enumerate(hourly + minutely):
        level = 118 + 6 * np.sin(i / 120) + rng.normal(0, 0.6)
        trust = float(np.clip(0.72 + rng.normal(0, 0.01), 0, 1))
        for team in (None, *words.TEAMS):
            share = 1 if team is None else len(words.TEAMS)
            yield (
                at, float(level), trust, team,
                float(level + rng.normal(0, 2)) if team else None,
                float(rng.beta(9, 2)) if team else None,
                *(float(rng.normal(mean, 0.05)) for mean in words.HORMONES.values()),
                int(plan.agents * 0.9) // share,
                int(plan.tasks / plan.task_days / 24) // share,
                float(rng.gamma(4, 2)) / share,
                plan.agents // 2 // share,
                timedelta(milliseconds=int(rng.gamma(3, 60))),
            )  # fmt: skip

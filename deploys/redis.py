"""Redis: the agents' hormone levels, a copy of PostgreSQL's that is asked all the time; compared with the truth by a timer."""

from __future__ import annotations

import hashlib
import json
import shlex

from pyinfra import host
from pyinfra.api import Host, deploy, operation

from deploys import base, exporters, tls
from deploys.lib import facts, findings, generated, hosts, sizing, verify
from deploys.lib.operations import Commands, Directory, File, files, service, template, units_read
from deploys.lib.settings import ROOT, HostSettings, PostgresqlSettings, RedisSettings, SettingsError, of

PACKAGES = ["redis-server", "prometheus-redis-exporter", "python3-redis", "python3-psycopg"]
UNIT = "redis-server.service"
USER = "redis"
CONFIG, USERS = "/etc/redis/redis.conf", "/etc/redis/users.acl"
DROP_IN = "/etc/systemd/system/redis-server.service.d/phoenix.conf"
DIRECTORY = "/etc/phoenix-redis"
LIBRARY = "/usr/local/lib/phoenix"
REREAD = f"{LIBRARY}/redis-reread"
LOADED = "/run/phoenix-redis-users.sha256"

EXPORTER = "/etc/default/prometheus-redis-exporter"
EXPORTER_DROP_IN = "/etc/systemd/system/prometheus-redis-exporter.service.d/phoenix.conf"
EXPORTER_PASSWORD = "/etc/prometheus/redis.json"  # noqa: S105 - a path

PARITY_USER = "phoenix-hormones"
PARITY = f"{LIBRARY}/hormone_parity.py"
PARITY_CONFIG = f"{DIRECTORY}/hormones.json"
TEXTFILE = f"{exporters.TEXTFILES}/phoenix_hormones.prom"
PARITY_SERVICE, PARITY_TIMER = (f"/etc/systemd/system/phoenix-hormones.{kind}" for kind in ("service", "timer"))

# What every client library asks before its first command; who may run it.
_GREETING = "+ping +hello +auth +client|setinfo +client|setname +client|id"
ACL = {
    # The operator, and this deploy.
    "admin": "~* &* +@all",
    # The stream worker, the comparison and the rebuild: the one script of services/phoenix_stream/hormones.py, and what it does.
    "worker": f"~hormone:* -@all {_GREETING} +evalsha +script|load +script|exists +scan +hmget +hget +hgetall +hset +persist +del +exists",
    # Agents look at levels and change none: levels change in PostgreSQL.
    "agent": f"%R~hormone:* -@all {_GREETING} +hget +hmget +hgetall +exists",
    # The exporter: figures, and no key.
    "monitor": f"-@all {_GREETING} +info +slowlog|len +slowlog|get +latency|latest +latency|histogram",
}
"""The rules of each user but `default`, which is off: Redis reads its log as it. What is dangerous is admin's; nothing is renamed."""

AT_START = frozenset(
    {"dir", "aclfile", "databases", "logfile", "enable-debug-command", "enable-module-command", "enable-protected-configs"}
)
"""Parameters that Redis takes over only when it starts."""

LISTS = ("bind", "client-output-buffer-limit")
"""Parameters that are several words."""


def members() -> list[Host]:
    """Members of the cluster whose levels the present host holds. Raises SettingsError when the inventory has none."""
    wanted = hosts.settings(RedisSettings).cluster_name
    found = [member for member in hosts.members("postgresql") if of(member, PostgresqlSettings).cluster_name == wanted]
    if not found:
        raise SettingsError(
            f"host {host.name}: redis_cluster_name is {wanted}, and no host of group postgresql is in a cluster of that name: name theirs."
        )
    return found


def size() -> sizing.RedisSize:
    """Sizes for the present host."""
    return sizing.redis(memory_mb=base.memory_mb(), memory_share=hosts.settings(RedisSettings).memory_share)


def parameters() -> dict[str, str]:
    """All of redis.conf that Phoenix sets, for the present host, in the words in which `CONFIG GET` answers."""
    settings = hosts.settings(RedisSettings)
    return {
        "bind": f"{hosts.settings(HostSettings).address} 127.0.0.1",
        "protected-mode": "yes",
        "port": "0",
        "tls-port": str(settings.port),
        "tls-cert-file": tls.CERTIFICATE,
        "tls-key-file": tls.KEY,
        "tls-ca-cert-file": tls.CA,
        # Who comes in proves it with a password; TLS proves who answers.
        "tls-auth-clients": "no",
        "tls-protocols": "TLSv1.2 TLSv1.3",
        "aclfile": USERS,
        "enable-debug-command": "no",
        "enable-module-command": "no",
        "enable-protected-configs": "no",
        "databases": "1",
        "dir": "/var/lib/redis",
        "logfile": "",
        "maxclients": str(settings.max_clients),
        "tcp-keepalive": "60",
        # Full means that writes are refused, and an alert long before: what is evicted would be missing, and nobody would know.
        "maxmemory": str(size().maxmemory_mb * 1024 * 1024),
        "maxmemory-policy": "noeviction",
        # Everything is in the file after a second at most. What a crash takes all the same, the stream brings again or a rebuild does.
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "auto-aof-rewrite-percentage": "100",
        "auto-aof-rewrite-min-size": str(32 * 1024 * 1024),
        # A client that does not read what it asked for goes before it takes the memory.
        "client-output-buffer-limit": "normal 33554432 16777216 30 slave 0 0 0 pubsub 33554432 8388608 60",
        "slowlog-log-slower-than": "20000",
        "latency-monitor-threshold": "100",
    }


def cli() -> str:
    """redis-cli as admin on the host itself. The password comes from a file that root alone reads, by the environment of this command."""
    port = hosts.settings(RedisSettings).port
    return (
        f'env REDISCLI_AUTH="$(cat {DIRECTORY}/admin.password)" timeout 10 redis-cli -e --no-auth-warning --user admin --tls '
        f"--cacert {tls.CA} -h 127.0.0.1 -p {port}"
    )


@deploy("Redis")
def redis() -> None:
    """Redis answers over TLS with its users, within its memory, and is compared with PostgreSQL. Restarts only for what needs it."""
    settings, own = hosts.settings(RedisSettings), hosts.settings(HostSettings).address
    exporters.account(name=f"User {PARITY_USER}", user=PARITY_USER)
    tls.readers(name="Redis and its exporter may read the host's key", users=[USER, "prometheus"])
    files(
        name="Configuration, users and units",
        entries=[
            Directory("/etc/redis", "root", USER, "2750"),
            File(CONFIG, template("redis/redis.conf.j2", parameters=parameters, lists=LISTS), "root", USER, "640"),
            File(USERS, template("redis/users.acl.j2", users=ACL, hashes=hashes), "root", USER, "640"),
            Directory(DIRECTORY),
            *[File(f"{DIRECTORY}/{user}.password", hosts.secret(f"redis/{user}"), mode="600") for user in ("admin", "worker")],
            File(f"{DIRECTORY}/monitor.password", hosts.secret("postgresql/monitor"), mode="600"),
            File(REREAD, template("redis/reread.sh.j2", cli=cli, tls=tls, loaded=LOADED), mode="755"),
            File(DROP_IN, template("redis/redis-server.service.conf.j2", reread=REREAD, size=size, open_files=settings.max_clients + 100)),
            *exporter(own),
            *parity(),
        ],
    )
    service(
        name="Redis runs with this configuration",
        unit=UNIT,
        restart_on=[DROP_IN],
        reload_on=[USERS, *tls.ALL],
        restart_if=needs_restart,
    )
    live(name="The running Redis has these settings and users")
    service(
        name="Redis exporter runs with this configuration",
        unit="prometheus-redis-exporter.service",
        restart_on=[EXPORTER, EXPORTER_DROP_IN, EXPORTER_PASSWORD],
    )
    units_read(name="systemd knows the comparison", units=["phoenix-hormones.service"])
    service(name="Levels are compared with PostgreSQL", unit="phoenix-hormones.timer", restart_on=[PARITY_TIMER])
    verify.answers(
        name="Redis answers over TLS",
        script=f'test "$({cli()} -h {own} PING)" = PONG',
        seconds=30,
        problem=f"Redis on {host.name} does not answer at {own}:{settings.port}: look at 'phoenix logs redis'.",
    )
    verify.answers(
        name="Redis is measured",
        script=f"{tls.CURL} --max-time 10 https://{own}:{settings.exporter_port}/metrics | grep '^redis_up 1'",
        seconds=30,
        problem=f"Redis' exporter on {host.name} does not reach Redis, or does not answer on port {settings.exporter_port}: "
        "look at 'phoenix logs redis-exporter'.",
    )


def exporter(address: str) -> list[File | Directory]:
    """The files of Redis' exporter."""
    settings = hosts.settings(RedisSettings)
    default = template(
        "redis_exporter/default.j2",
        address=address,
        port=settings.exporter_port,
        redis_port=settings.port,
        password_file=EXPORTER_PASSWORD,
        tls=tls,
    )
    password = hosts.secret("redis/monitor")
    known = {f"rediss://monitor@127.0.0.1:{settings.port}": "", f"rediss://127.0.0.1:{settings.port}": ""}
    return [
        File(EXPORTER_PASSWORD, lambda: json.dumps(dict.fromkeys(known, password()), indent=1), "root", "prometheus", "640"),
        File(EXPORTER, default),
        File(EXPORTER_DROP_IN, template("redis_exporter/prometheus-redis-exporter.service.conf.j2")),
    ]


def parity() -> list[File | Directory]:
    """The files of the comparison."""
    settings = hosts.settings(RedisSettings)
    found = members()
    configuration = {
        "postgresql": {"hosts": [hosts.address(member) for member in found], "port": of(found[0], PostgresqlSettings).port},
        "redis": {"port": settings.port},
        "ca": tls.CA,
        "settle_s": settings.parity_settle_s,
    }
    return [
        Directory(f"{LIBRARY}/phoenix_stream"),
        *[
            File(f"{LIBRARY}/{name}", (ROOT / "services" / name).read_text(encoding="utf-8"), mode="755")
            for name in ("hormone_parity.py", "phoenix_stream/hormones.py")
        ],
        File(PARITY_CONFIG, json.dumps(configuration, indent=1)),
        File(
            PARITY_SERVICE,
            template(
                "redis/phoenix-hormones.service.j2",
                program=PARITY,
                config=PARITY_CONFIG,
                user=PARITY_USER,
                directory=DIRECTORY,
                textfile=TEXTFILE,
            ),
        ),
        File(PARITY_TIMER, template("redis/phoenix-hormones.timer.j2", cfg=settings)),
    ]


def hashes() -> dict[str, str]:
    """SHA-256 of each user's password. Passwords are 256 random bits, so a plain digest is as good as a slow one."""
    return {user: hashlib.sha256(hosts.secrets().get(f"redis/{user}").encode()).hexdigest() for user in generated.REDIS_USERS}


def needs_restart() -> bool:
    """Whether the running server has a setting that only a start changes, or does not know the present password of admin."""
    script = f"{cli()} PING 2>&1 || true"
    if "WRONGPASS" in str(host.get_fact(facts.Output, script=script)):
        findings.report("Redis does not know the present password of admin")
        return True
    return bool(_differing() & AT_START)


def _differing() -> set[str]:
    """Names of the parameters that the running server has with another value; none when it does not answer."""
    wanted = parameters()
    running = host.get_fact(facts.Json, script=f"{cli()} --json CONFIG GET {' '.join(wanted)}")
    if not isinstance(running, dict):
        return set()
    return {name for name, value in wanted.items() if running.get(name) != value}


@operation()
def live() -> Commands:
    """What somebody changed in the running server, or what the file says since it started, is put right without a restart."""
    wanted = parameters()
    differing = sorted(_differing() - AT_START)
    commands: list[str] = []
    for name in differing:
        findings.report(f"Redis runs with another {name}")
    if differing:
        # All of them or none.
        commands.append(f"{cli()} CONFIG SET {' '.join(f'{name} {shlex.quote(wanted[name])}' for name in differing)} >/dev/null")
    script = f"test ! -e {LOADED} || {cli()} ACL LIST | sha256sum | cmp -s - {LOADED}"
    if host.get_fact(facts.Output, script=script).endswith(facts.FAILED):
        findings.report("Redis has other users or rules than users.acl")
        commands.append(REREAD)
    yield from commands

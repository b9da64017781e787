-- The shared task board.
CREATE TYPE phoenix.task_status AS ENUM ('open', 'claimed', 'in_progress', 'review', 'complete', 'failed');

-- Frozen with the column stored from it: another formula is another migration that rewrites the column.
CREATE FUNCTION phoenix.hot_score(upvotes integer, downvotes integer, created_at timestamptz) RETURNS double precision
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN sign((upvotes - downvotes)::double precision) * log(greatest(abs(upvotes - downvotes), 1)::double precision)
           + (extract(epoch FROM created_at AT TIME ZONE 'UTC'))::double precision / 45000;
COMMENT ON FUNCTION phoenix.hot_score IS 'Rank on the board: log10 of the net votes plus the creation time in units of 12.5 h; only the order means something';

CREATE TABLE phoenix.tasks (
    id              uuid        PRIMARY KEY DEFAULT gen_random_uuid(),

    title           text        NOT NULL,
    description     text,
    category        text,
    priority        integer     NOT NULL DEFAULT 5,

    created_by      uuid        REFERENCES phoenix.agents (id),
    assigned_to     uuid        REFERENCES phoenix.agents (id),
    team_assignment phoenix.team,

    -- Kept by the database from task_votes (R__40_board.sql); nobody writes them.
    upvotes         integer     NOT NULL DEFAULT 0,
    downvotes       integer     NOT NULL DEFAULT 0,
    -- The spec stores NOW() in a generated column, which PostgreSQL refuses, and adds the age, so that a task would rise by getting old.
    -- Hot means the reverse: votes lift a task and age sinks it. At any one moment "score minus age" gives the same order as "score plus
    -- creation time", and that needs no clock. Ten times the votes are worth 12.5 hours, so that neither the first vote nor the
    -- thousandth decides everything (docs/decisions/0101-hot-score.md).
    hot_score       double precision NOT NULL GENERATED ALWAYS AS (phoenix.hot_score(upvotes, downvotes, created_at)) STORED,

    dopamine_reward double precision NOT NULL DEFAULT 1.0,
    completion_bonus jsonb,

    status          phoenix.task_status NOT NULL DEFAULT 'open',
    claimed_at      timestamptz,
    started_at      timestamptz,
    completed_at    timestamptz,

    output          jsonb,
    quality_score   double precision,

    created_at      timestamptz NOT NULL DEFAULT now(),
    deadline        timestamptz,

    fibonacci_size  integer     NOT NULL DEFAULT 1,
    value_delivered numeric(18, 2),

    CONSTRAINT title_not_blank CHECK (title ~ '\S'),
    CONSTRAINT priority_range CHECK (priority BETWEEN 1 AND 10),
    CONSTRAINT votes_not_negative CHECK (upvotes >= 0 AND downvotes >= 0),
    CONSTRAINT created_at_finite CHECK (isfinite(created_at)),
    CONSTRAINT complete_has_time CHECK ((status = 'complete') = (completed_at IS NOT NULL)),
    CONSTRAINT quality_range CHECK (quality_score BETWEEN 0 AND 1),
    CONSTRAINT size_is_fibonacci CHECK (fibonacci_size IN (1, 2, 3, 5, 8, 13, 21, 34, 55, 89))
);
COMMENT ON COLUMN phoenix.tasks.category IS 'data_mining, lead_gen, content, development, …';
COMMENT ON COLUMN phoenix.tasks.value_delivered IS 'US dollars';

CREATE INDEX idx_tasks_hot ON phoenix.tasks (hot_score DESC) INCLUDE (title, assigned_to, dopamine_reward) WHERE status IN ('open', 'claimed');
-- The two columns that row security asks about.
CREATE INDEX idx_tasks_created_by ON phoenix.tasks (created_by, created_at DESC);
CREATE INDEX idx_tasks_assigned_to ON phoenix.tasks (assigned_to, created_at DESC);
CREATE INDEX idx_tasks_completed ON phoenix.tasks (completed_at) WHERE status = 'complete';

ALTER TABLE phoenix.agents
    ADD CONSTRAINT agents_current_task_fkey FOREIGN KEY (current_task) REFERENCES phoenix.tasks (id) ON DELETE SET NULL;
CREATE INDEX idx_agents_current_task ON phoenix.agents (current_task) WHERE current_task IS NOT NULL;

-- The spec's depends_on and blocks are one relation told twice in arrays; a trigger refuses circles.
CREATE TABLE phoenix.task_dependencies (
    task_id    uuid NOT NULL REFERENCES phoenix.tasks (id) ON DELETE CASCADE,
    depends_on uuid NOT NULL REFERENCES phoenix.tasks (id) ON DELETE CASCADE,
    PRIMARY KEY (task_id, depends_on),
    CONSTRAINT not_on_itself CHECK (task_id <> depends_on)
);
CREATE INDEX idx_task_dependencies_back ON phoenix.task_dependencies (depends_on);

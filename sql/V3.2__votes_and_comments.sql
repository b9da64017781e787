-- Votes and comments. Nullable keys in the spec (a vote by nobody on nothing) are NOT NULL here.
CREATE TABLE phoenix.task_votes (
    task_id     uuid        NOT NULL REFERENCES phoenix.tasks (id) ON DELETE CASCADE,
    agent_id    uuid        NOT NULL REFERENCES phoenix.agents (id),
    vote        integer     NOT NULL CHECK (vote IN (-1, 1)),
    reason      text,
    "timestamp" timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (task_id, agent_id)
);
CREATE INDEX idx_task_votes_agent ON phoenix.task_votes (agent_id);

CREATE TABLE phoenix.task_comments (
    id                uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    task_id           uuid        NOT NULL REFERENCES phoenix.tasks (id) ON DELETE CASCADE,
    agent_id          uuid        NOT NULL REFERENCES phoenix.agents (id),
    parent_comment_id uuid,

    content           text        NOT NULL,
    attachments       jsonb,

    upvotes           integer     NOT NULL DEFAULT 0,
    downvotes         integer     NOT NULL DEFAULT 0,

    created_at        timestamptz NOT NULL DEFAULT now(),
    edited_at         timestamptz,

    CONSTRAINT content_not_blank CHECK (content ~ '\S'),
    CONSTRAINT votes_not_negative CHECK (upvotes >= 0 AND downvotes >= 0),
    CONSTRAINT task_comments_of_task UNIQUE (task_id, id),
    -- Together with the task, so that an answer stays in its own discussion.
    CONSTRAINT task_comments_parent_fkey FOREIGN KEY (task_id, parent_comment_id) REFERENCES phoenix.task_comments (task_id, id) ON DELETE CASCADE
);
CREATE INDEX idx_task_comments_agent ON phoenix.task_comments (agent_id);
CREATE INDEX idx_task_comments_parent ON phoenix.task_comments (task_id, parent_comment_id);

-- The spec counts votes on comments without keeping them; without the votes the counts could not be kept right.
CREATE TABLE phoenix.task_comment_votes (
    comment_id  uuid        NOT NULL REFERENCES phoenix.task_comments (id) ON DELETE CASCADE,
    agent_id    uuid        NOT NULL REFERENCES phoenix.agents (id),
    vote        integer     NOT NULL CHECK (vote IN (-1, 1)),
    "timestamp" timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (comment_id, agent_id)
);
CREATE INDEX idx_task_comment_votes_agent ON phoenix.task_comment_votes (agent_id);

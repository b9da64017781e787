-- The counters behind the metrics and alerts: how many tasks were ever created, completed, failed, and how many are in each status now.

-- One row is added by each statement that changes tasks; the figures are the sums. Rows are only ever added, so writers never wait for
-- each other, which one row counting up would make them do; the job fold-task-ledger folds the rows into one. Deleting tasks subtracts from
-- the status columns and leaves the three others as they are (docs/decisions/0105-counters.md).
CREATE TABLE phoenix.task_ledger (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created       bigint NOT NULL DEFAULT 0 CHECK (created >= 0),
    completed     bigint NOT NULL DEFAULT 0 CHECK (completed >= 0),
    failed        bigint NOT NULL DEFAULT 0 CHECK (failed >= 0),
    now_open        bigint NOT NULL DEFAULT 0,
    now_claimed     bigint NOT NULL DEFAULT 0,
    now_in_progress bigint NOT NULL DEFAULT 0,
    now_review      bigint NOT NULL DEFAULT 0,
    now_complete    bigint NOT NULL DEFAULT 0,
    now_failed      bigint NOT NULL DEFAULT 0
);

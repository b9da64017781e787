-- After the hypertable, so that chunks inherit them.
CREATE INDEX idx_timeline_time ON phoenix.consciousness_timeline USING brin ("time");
CREATE INDEX idx_timeline_team ON phoenix.consciousness_timeline (team, "time" DESC) WHERE team IS NOT NULL;

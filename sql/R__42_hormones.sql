-- An agent that returns to service has no key in Redis any more (docs/redis.md): its levels are told again, as those of a new one are.
CREATE OR REPLACE TRIGGER outbox_hormones_returned AFTER UPDATE OF decommissioned_at ON phoenix.agents
    FOR EACH ROW WHEN (OLD.decommissioned_at IS NOT NULL AND NEW.decommissioned_at IS NULL) EXECUTE FUNCTION phoenix.hormone_levels_changed();

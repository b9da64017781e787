-- What the stream workers write (services/phoenix_stream/sinks/postgres.py): login `stream` may call these two functions and nothing else.
-- Both are idempotent, for a worker that was killed applies its last batch again.

SET ROLE phoenix_board;

-- As phoenix_board, which sees every task and may write just these columns of agents. Only what changes is written: an agent's heartbeat that
-- is not newer than what is stored changes nothing, so neither a repetition nor a late one does any harm. A task that is gone counts as none:
-- the agent lives all the same. Returned are the agents whose heartbeats could not be stored, and why.
--
-- Rows are locked in the order of the ids given, which is why they are looked up one by one (no hash, no merge join): two who update several
-- agents must not wait for each other in a circle.
CREATE OR REPLACE FUNCTION phoenix.apply_heartbeats(agents uuid[], beats timestamptz[], tasks uuid[], idle timestamptz[])
    RETURNS TABLE (agent uuid, problem text)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    UPDATE phoenix.agents a SET last_heartbeat = b.beat, current_task = t.id, idle_since = b.idle
    FROM unnest(apply_heartbeats.agents, beats, apply_heartbeats.tasks, apply_heartbeats.idle) AS b (agent, beat, task, idle)
         LEFT JOIN phoenix.tasks t ON t.id = b.task
    WHERE a.id = b.agent AND a.decommissioned_at IS NULL AND a.last_heartbeat < b.beat;
    RETURN QUERY
    SELECT b.agent, CASE WHEN a.id IS NULL THEN 'is not known' ELSE 'is decommissioned' END
    FROM unnest(apply_heartbeats.agents) AS b (agent) LEFT JOIN phoenix.agents a ON a.id = b.agent
    WHERE a.id IS NULL OR a.decommissioned_at IS NOT NULL;
END
$$;
COMMENT ON FUNCTION phoenix.apply_heartbeats IS 'Stores heartbeats, one per agent, in the order of the ids; returns the agents that have none to store';

SET ROLE phoenix_owner;

-- One row per moment and team; told again, the last word counts. `figures` is a list of objects with the table's columns.
CREATE OR REPLACE FUNCTION phoenix.apply_consciousness(figures jsonb) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    written bigint;
BEGIN
    INSERT INTO phoenix.consciousness_timeline AS c
        ("time", team, global_consciousness, global_trust, team_consciousness, team_coherence, avg_dopamine, avg_oxytocin, avg_adrenaline,
         avg_cortisol, active_agents, tasks_per_hour, decisions_per_second, entanglement_pairs, coherence_average)
    SELECT "time", team, global_consciousness, global_trust, team_consciousness, team_coherence, avg_dopamine, avg_oxytocin, avg_adrenaline,
           avg_cortisol, active_agents, tasks_per_hour, decisions_per_second, entanglement_pairs, coherence_average
    FROM jsonb_populate_recordset(NULL::phoenix.consciousness_timeline, figures)
    ON CONFLICT ("time", team) DO UPDATE SET
        global_consciousness = excluded.global_consciousness, global_trust = excluded.global_trust,
        team_consciousness = excluded.team_consciousness, team_coherence = excluded.team_coherence,
        avg_dopamine = excluded.avg_dopamine, avg_oxytocin = excluded.avg_oxytocin,
        avg_adrenaline = excluded.avg_adrenaline, avg_cortisol = excluded.avg_cortisol,
        active_agents = excluded.active_agents, tasks_per_hour = excluded.tasks_per_hour,
        decisions_per_second = excluded.decisions_per_second, entanglement_pairs = excluded.entanglement_pairs,
        coherence_average = excluded.coherence_average
    WHERE (c.global_consciousness, c.global_trust, c.team_consciousness, c.team_coherence, c.avg_dopamine, c.avg_oxytocin, c.avg_adrenaline,
           c.avg_cortisol, c.active_agents, c.tasks_per_hour, c.decisions_per_second, c.entanglement_pairs, c.coherence_average)
          IS DISTINCT FROM
          (excluded.global_consciousness, excluded.global_trust, excluded.team_consciousness, excluded.team_coherence, excluded.avg_dopamine,
           excluded.avg_oxytocin, excluded.avg_adrenaline, excluded.avg_cortisol, excluded.active_agents, excluded.tasks_per_hour,
           excluded.decisions_per_second, excluded.entanglement_pairs, excluded.coherence_average);
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written;
END
$$;
COMMENT ON FUNCTION phoenix.apply_consciousness IS 'Stores figures of consciousness, a list of objects with the columns of consciousness_timeline; returns how many rows changed';

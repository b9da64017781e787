-- An event goes to a topic that there is, or is refused where it is written: Kafka would make everything behind it wait for the topic.
-- Another topic is another migration with another list, and an entry in kafka_topics.
ALTER TABLE phoenix.outbox
    DROP CONSTRAINT topic_named,
    ADD CONSTRAINT topic_known CHECK (type IN ('task.created', 'task.completed', 'persona.enriched', 'hormone.cascade', 'graph.changed'));

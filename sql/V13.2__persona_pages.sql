-- Room on the pages of personas spares the vector indexes: an update that stays on its page and touches no indexed column enters none of
-- them, and one entry costs milliseconds. The parent has no storage of its own, so each partition is told; later ones: R__20_partitions.sql.
ALTER TABLE phoenix.personas_2025_q4 SET (fillfactor = 85);
ALTER TABLE phoenix.personas_default SET (fillfactor = 85);

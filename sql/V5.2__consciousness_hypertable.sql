-- requires: timescaledb
-- One chunk per week: with a row a minute and team some 40,000 rows, small enough that dropping and compressing work in even steps.
-- No default index: the unique constraint already begins with time, and the spec wants the BRIN index of V5.3.
SELECT public.create_hypertable('phoenix.consciousness_timeline', public.by_range('time', INTERVAL '7 days'), create_default_indexes => false);

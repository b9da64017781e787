-- Opportunities: weights, closing, time in stage.
SELECT plan(7);
INSERT INTO phoenix.opportunities (name, value, probability) VALUES ('tap', 1000.10, 0.25);
SELECT is((SELECT weighted_value FROM phoenix.opportunities WHERE name = 'tap'), 250.025, 'the weighted value is exact');
UPDATE phoenix.opportunities SET stage_entered_at = now() - INTERVAL '3 days 1 hour' WHERE name = 'tap';
SELECT is((SELECT days_in_stage FROM phoenix.opportunity_board WHERE name = 'tap'), 3, 'days in stage are counted by the clock');
UPDATE phoenix.opportunities SET stage = 'closed_won' WHERE name = 'tap';
SELECT is((SELECT weighted_value FROM phoenix.opportunities WHERE name = 'tap'), 1000.10, 'a won opportunity counts in full');
SELECT is((SELECT days_in_stage FROM phoenix.opportunity_board WHERE name = 'tap'), 0, 'a new stage starts counting anew');
UPDATE phoenix.opportunities SET stage = 'closed_lost' WHERE name = 'tap';
SELECT is((SELECT weighted_value FROM phoenix.opportunities WHERE name = 'tap')::numeric(10, 2), 0.00, 'a lost one counts nothing');
SELECT throws_ok($$ INSERT INTO phoenix.opportunities (name, value, probability) VALUES ('tap', 1, 1.5) $$, '23514', NULL, 'a probability above one is refused');
SELECT throws_ok($$ INSERT INTO phoenix.revenue_forecast (period_start, period_end) VALUES ('2026-02-01', '2026-01-01') $$, '23514', NULL, 'a period that ends before it starts is refused');
SELECT * FROM finish();

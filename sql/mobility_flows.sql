-- The zone-to-zone flows of a region's zones, rows of one pair of zones together.
-- Two rows of a pair may count the same people, so the people vouched for are those of the larger row.
-- reads: mobility_rows (from mobility_flow_rows)
-- writes: temporary table mobility_flows (origin, destination, rows, weight, people)
CREATE OR REPLACE TEMP TABLE mobility_flows AS
SELECT
    origin,
    destination,
    count(*) AS rows,
    -- decimals add up to the same sum in any order
    sum(amount::DECIMAL(38, 18)) AS weight,
    max(amount) AS people
FROM mobility_rows
WHERE status = 'inside' AND amount > 0
GROUP BY origin, destination

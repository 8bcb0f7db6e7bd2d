-- Counts the zone-to-zone flows by region of origin and what becomes of them.
-- reads: mobility_flows
-- writes: result (region, fate, flows, weight, rows_repeated)
SELECT
    region,
    fate,
    count(*) AS flows,
    sum(weight)::DOUBLE AS weight,
    (sum(rows) - count(*))::BIGINT AS rows_repeated
FROM mobility_flows
WHERE fate IS NOT NULL
GROUP BY region, fate
ORDER BY region, fate

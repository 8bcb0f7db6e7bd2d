-- Counts the rows of a zone-to-zone source by what becomes of them.
-- reads: mobility_flows
-- writes: result (status, rows, weight)
SELECT
    status,
    sum(rows)::BIGINT AS rows,
    sum(weight)::DOUBLE AS weight
FROM mobility_flows
GROUP BY status
ORDER BY status

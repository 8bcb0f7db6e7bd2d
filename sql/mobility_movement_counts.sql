-- Counts movements by what becomes of them.
-- reads: mobility_pairs
-- writes: result (status, movements)
SELECT
    status,
    sum(movements)::BIGINT AS movements
FROM mobility_pairs
GROUP BY status
ORDER BY status

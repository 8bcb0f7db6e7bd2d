-- Counts movements by what becomes of them.
-- reads: mobility_movements
-- writes: result (status, movements)
SELECT
    status,
    count(*) AS movements
FROM mobility_movements
GROUP BY status
ORDER BY status

-- Counts edges and their weight by what becomes of them.
-- reads: mobility_judged
-- writes: result (fate, edges, weight)
SELECT
    fate,
    count(*) AS edges,
    sum(weight)::DOUBLE AS weight
FROM mobility_judged
GROUP BY fate
ORDER BY fate

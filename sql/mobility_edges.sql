-- The edges of a partition: contributions of all sources, weights added, the smallest group of people kept.
-- reads: mobility_contributions
-- writes: result (src, dst, weight, people), the rows of the table mobility_edges
SELECT
    src,
    dst,
    sum(weight)::DOUBLE AS weight,
    min(people) AS people
FROM mobility_contributions
GROUP BY src, dst
-- shares too small for the decimals leave no edge
HAVING sum(weight) > 0
ORDER BY src, dst

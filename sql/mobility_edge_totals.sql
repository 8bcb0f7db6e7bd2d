-- Counts the edges of a partition and their weight.
-- reads: mobility_contributions
-- writes: result (edges, weight), one row
SELECT
    count(*) AS edges,
    coalesce(sum(weight), 0)::DOUBLE AS weight
FROM (
    SELECT sum(weight) AS weight
    FROM mobility_contributions
    GROUP BY src, dst
    HAVING sum(weight) > 0
)

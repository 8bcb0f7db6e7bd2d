-- Gathers movements into edges: how many, by how many distinct people.
-- reads: mobility_movements
-- writes: temporary table mobility_candidates (src, dst, weight, people)
CREATE OR REPLACE TEMP TABLE mobility_candidates AS
SELECT
    src,
    dst,
    count(*)::DECIMAL(38, 18) AS weight,
    count(DISTINCT person)::DOUBLE AS people
FROM mobility_movements
WHERE status = 'kept'
GROUP BY src, dst

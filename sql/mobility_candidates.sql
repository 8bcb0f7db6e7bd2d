-- The edges of one source that start in one region, or in a slice of its cells: those of all buckets together.
-- reads: mobility_parts (region, src, dst, movements, people), from mobility_bucket_edges
-- writes: temporary table mobility_candidates (src, dst, weight, people)
-- parameters: $region: number of the region; $first_src, $last_src: the slice
CREATE OR REPLACE TEMP TABLE mobility_candidates AS
SELECT
    src,
    dst,
    sum(movements)::DECIMAL(38, 18) AS weight,
    sum(people)::DOUBLE AS people
FROM mobility_parts
WHERE region = $region AND src BETWEEN $first_src AND $last_src
GROUP BY src, dst

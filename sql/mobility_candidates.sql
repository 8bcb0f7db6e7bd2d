-- The edges of one source that start in one region: those of all buckets together.
-- reads: the Parquet files of a region, written by mobility_bucket_edges
-- writes: temporary table mobility_candidates (src, dst, weight, people)
-- parameters: $files
CREATE OR REPLACE TEMP TABLE mobility_candidates AS
SELECT
    src,
    dst,
    sum(movements)::DECIMAL(38, 18) AS weight,
    sum(people)::DOUBLE AS people
FROM read_parquet($files, hive_partitioning = false)
GROUP BY src, dst

-- The trips of one bucket, counted by person, origin and destination.
-- reads: the Parquet files of a bucket, written by mobility_trips
-- writes: temporary table mobility_pairs (status, person, src, dst, movements)
-- parameters: $files
CREATE OR REPLACE TEMP TABLE mobility_pairs AS
SELECT
    'kept' AS status,
    person,
    src,
    dst,
    count(*) AS movements
FROM read_parquet($files, hive_partitioning = false)
GROUP BY person, src, dst

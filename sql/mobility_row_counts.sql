-- Counts the rows of a visits or trips source by what becomes of them, with the first rows of each kind but the good.
-- reads: the Parquet files written by mobility_visits or mobility_trips
-- writes: result (status, rows, first_rows)
-- parameters: $files
SELECT
    status,
    count(*) AS rows,
    min(source_row, 5) AS first_rows
FROM read_parquet($files, hive_partitioning = false)
GROUP BY status
ORDER BY status

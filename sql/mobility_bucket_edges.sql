-- Gathers the movements of one bucket into edges, by region of origin. A person is in one bucket, so that the people of
-- an edge add up over buckets.
-- reads: mobility_bounded, grid (cell, region)
-- writes: Parquet files under the folder, by region: src, dst, movements, people
-- parameters: $with_person: else every movement counts as a person; $folder
COPY (
    SELECT
        grid.region,
        pairs.src,
        pairs.dst,
        sum(pairs.movements)::BIGINT AS movements,
        CASE WHEN $with_person THEN count(*) ELSE sum(pairs.movements) END::BIGINT AS people
    FROM mobility_bounded AS pairs
    JOIN grid ON grid.cell = pairs.src
    GROUP BY grid.region, pairs.src, pairs.dst
) TO $folder (FORMAT parquet, COMPRESSION lz4, PARTITION_BY (region), APPEND)

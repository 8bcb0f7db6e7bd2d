-- Judges and locates each row of a trips source in one scan, and spreads the rows over buckets: by person or, where the
-- source has none, by origin.
-- Every row gets one status: without_person (where the source has people), swapped (an end in no region, but its
-- longitude and latitude exchanged would be), without_position (an end missing, not finite or out of range), outside (an
-- end in no region) or inside. Rows that are not inside go to bucket -1 and keep only what messages need.
-- reads: mobility_source (source_row, origin_lon, origin_lat, destination_lon, destination_lat and maybe person),
--   grid (cell, region)
-- writes: Parquet files under the folder, by bucket: status, source_row, person, src, dst
-- parameters: $resolution; $with_person: the source has people; $buckets: number of buckets; $folder
COPY (
    WITH source AS (
        SELECT NULL::VARCHAR AS person
        WHERE false
        UNION ALL BY NAME
        SELECT * FROM mobility_source
    ),
    located AS (
        SELECT
            *,
            point_to_cell(origin_lon, origin_lat, $resolution) AS src,
            point_to_cell(destination_lon, destination_lat, $resolution) AS dst
        FROM source
    ),
    homes AS (
        SELECT
            located.*,
            origin.region AS src_region,
            destination.region AS dst_region
        FROM located
        LEFT JOIN grid AS origin ON origin.cell = located.src
        LEFT JOIN grid AS destination ON destination.cell = located.dst
    ),
    exchanged AS (
        SELECT
            *,
            CASE WHEN src_region IS NULL THEN point_to_cell(origin_lat, origin_lon, $resolution) END AS exchanged_src,
            CASE
                WHEN dst_region IS NULL THEN point_to_cell(destination_lat, destination_lon, $resolution)
            END AS exchanged_dst
        FROM homes
    ),
    judged AS (
        SELECT
            exchanged.*,
            CASE
                WHEN $with_person AND person IS NULL THEN 'without_person'
                WHEN origin.cell IS NOT NULL OR destination.cell IS NOT NULL THEN 'swapped'
                WHEN src IS NULL OR dst IS NULL THEN 'without_position'
                WHEN src_region IS NULL OR dst_region IS NULL THEN 'outside'
                ELSE 'inside'
            END AS status
        FROM exchanged
        LEFT JOIN grid AS origin ON origin.cell = exchanged.exchanged_src
        LEFT JOIN grid AS destination ON destination.cell = exchanged.exchanged_dst
    )
    SELECT
        CASE
            WHEN status <> 'inside' THEN -1
            WHEN $with_person THEN (hash(person) % $buckets)::BIGINT
            ELSE (hash(src) % $buckets)::BIGINT
        END AS bucket,
        status,
        CASE WHEN status <> 'inside' THEN source_row END AS source_row,
        CASE WHEN status = 'inside' THEN person END AS person,
        CASE WHEN status = 'inside' THEN src END AS src,
        CASE WHEN status = 'inside' THEN dst END AS dst
    FROM judged
) TO $folder (FORMAT parquet, COMPRESSION lz4, PARTITION_BY (bucket))

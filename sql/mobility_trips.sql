-- Judges each row of a trips source.
-- Every row gets one status: without_person (where the source has people), swapped (an end in no region, but its
-- longitude and latitude exchanged would be), without_position (an end missing, not finite or out of range), outside (an
-- end in no region), other_region (starts in another region) or inside.
-- reads: mobility_source (source_row, origin_lon, origin_lat, destination_lon, destination_lat and maybe person),
--   grid (cell, region)
-- writes: temporary table mobility_rows (source_row, person, src, dst, amount, status)
-- parameters: $resolution; $region; $with_person: the source has people, else every trip counts as a person
CREATE OR REPLACE TEMP TABLE mobility_rows AS
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
swapped AS (
    SELECT DISTINCT source_row
    FROM (
        SELECT source_row, point_to_cell(origin_lat, origin_lon, $resolution) AS cell
        FROM homes
        WHERE src_region IS NULL
        UNION ALL
        SELECT source_row, point_to_cell(destination_lat, destination_lon, $resolution) AS cell
        FROM homes
        WHERE dst_region IS NULL
    )
    SEMI JOIN grid USING (cell)
)
SELECT
    source_row,
    CASE WHEN $with_person THEN person ELSE source_row::VARCHAR END AS person,
    src,
    dst,
    1::DOUBLE AS amount,
    CASE
        WHEN $with_person AND person IS NULL THEN 'without_person'
        WHEN swapped.source_row IS NOT NULL THEN 'swapped'
        WHEN src IS NULL OR dst IS NULL THEN 'without_position'
        WHEN src_region IS NULL OR dst_region IS NULL THEN 'outside'
        WHEN src_region <> $region THEN 'other_region'
        ELSE 'inside'
    END AS status
FROM homes
LEFT JOIN swapped USING (source_row)

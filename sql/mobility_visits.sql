-- Judges and locates each row of a visits source in one scan, and spreads the rows over buckets by person.
-- Every row gets one status: without_person, without_time, swapped (in no region, but longitude and latitude exchanged
-- would be), without_position (missing, not finite or out of range), outside (in no region; still a stop between two
-- visits) or inside. Rows that are no stop go to bucket -1 and keep only what messages need.
-- reads: mobility_source (source_row, person, time, lon, lat), grid (cell, region)
-- writes: Parquet files under the folder, by bucket: status, source_row, person, time_us, cell, inside
-- parameters: $resolution; $buckets: number of buckets; $folder
COPY (
    WITH located AS (
        SELECT
            *,
            point_to_cell(lon, lat, $resolution) AS cell
        FROM mobility_source
    ),
    homes AS (
        SELECT located.*, grid.region
        FROM located
        LEFT JOIN grid USING (cell)
    ),
    exchanged AS (
        SELECT
            *,
            CASE WHEN region IS NULL THEN point_to_cell(lat, lon, $resolution) END AS exchanged_cell
        FROM homes
    ),
    judged AS (
        SELECT
            exchanged.*,
            CASE
                WHEN person IS NULL THEN 'without_person'
                WHEN time IS NULL OR NOT isfinite(time) THEN 'without_time'
                WHEN other.cell IS NOT NULL THEN 'swapped'
                WHEN exchanged.cell IS NULL THEN 'without_position'
                WHEN exchanged.region IS NULL THEN 'outside'
                ELSE 'inside'
            END AS status
        FROM exchanged
        LEFT JOIN grid AS other ON other.cell = exchanged.exchanged_cell
    ),
    stops AS (
        SELECT *, status IN ('inside', 'outside') AS stop
        FROM judged
    )
    SELECT
        CASE WHEN stop THEN (hash(person) % $buckets)::BIGINT ELSE -1 END AS bucket,
        status,
        CASE WHEN NOT stop THEN source_row END AS source_row,
        CASE WHEN stop THEN person END AS person,
        CASE WHEN stop THEN epoch_us(time) END AS time_us,
        CASE WHEN stop THEN cell END AS cell,
        CASE WHEN stop THEN region IS NOT NULL END AS inside
    FROM stops
) TO $folder (FORMAT parquet, COMPRESSION lz4, PARTITION_BY (bucket))

-- Judges each row of a visits source.
-- Every row gets one status: without_person, without_time, swapped (in no region, but longitude and latitude exchanged
-- would be), without_position (missing, not finite or out of range), duplicate (same person, time and cell as a lower
-- row), outside (in no region; still a stop between two visits) or inside.
-- reads: mobility_source (source_row, person, time, lon, lat), grid (cell, region)
-- writes: temporary table mobility_rows (source_row, person, time, cell, region, amount, status)
-- parameters: $resolution
CREATE OR REPLACE TEMP TABLE mobility_rows AS
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
swapped AS (
    SELECT source_row
    FROM (
        SELECT source_row, point_to_cell(lat, lon, $resolution) AS cell
        FROM homes
        WHERE region IS NULL
    )
    SEMI JOIN grid USING (cell)
),
judged AS (
    SELECT
        homes.*,
        CASE
            WHEN person IS NULL THEN 'without_person'
            WHEN time IS NULL OR NOT isfinite(time) THEN 'without_time'
            WHEN swapped.source_row IS NOT NULL THEN 'swapped'
            WHEN cell IS NULL THEN 'without_position'
            WHEN region IS NULL THEN 'outside'
            ELSE 'inside'
        END AS status
    FROM homes
    LEFT JOIN swapped USING (source_row)
)
SELECT
    source_row,
    person,
    time,
    cell,
    region,
    1::DOUBLE AS amount,
    CASE
        WHEN status IN ('inside', 'outside')
            AND row_number() OVER (PARTITION BY person, time, cell, status ORDER BY source_row) > 1 THEN 'duplicate'
        ELSE status
    END AS status
FROM judged

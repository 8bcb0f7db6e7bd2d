-- Finds where each row of a point source lies and what becomes of it.
-- Every row gets one status: without_position, swapped (longitude and latitude exchanged would hit a cell),
-- out_of_range, outside (in no region), duplicate_id (a lower row has the same id and lies inside) or inside.
-- reads: poi_source (source_row and some of id, name, category, lon, lat, wkt, wkb), grid (cell, region)
-- writes: temporary table poi_points (source_row, name, category, cell, region, filled, status)
-- parameters: $resolution
CREATE OR REPLACE TEMP TABLE poi_points AS
WITH source AS (
    -- columns that the source does not have become null
    SELECT
        NULL::VARCHAR AS id,
        NULL::VARCHAR AS name,
        NULL::VARCHAR AS category,
        NULL::DOUBLE AS lon,
        NULL::DOUBLE AS lat,
        NULL::VARCHAR AS wkt,
        NULL::BLOB AS wkb
    WHERE false
    UNION ALL BY NAME
    SELECT * FROM poi_source
),
read AS (
    SELECT
        source_row,
        id,
        name,
        category,
        coalesce(lon, lat) IS NOT NULL OR wkt IS NOT NULL OR wkb IS NOT NULL AS filled,
        -- POINT (x y), POINT Z (x y z), SRID=4326;POINT(x y)
        regexp_extract(
            wkt, '^(?:SRID=\d+;)?\s*POINT\s*(?:Z|M|ZM)?\s*\(\s*([^\s,()]+)\s+([^\s,()]+)', ['x', 'y'], 'i'
        ) AS wkt_point,
        wkb_point(wkb) AS wkb_point,
        lon,
        lat
    FROM source
),
positions AS (
    SELECT
        source_row,
        id,
        name,
        category,
        filled,
        coalesce(lon, TRY_CAST(wkt_point.x AS DOUBLE), wkb_point[1]) AS lon,
        coalesce(lat, TRY_CAST(wkt_point.y AS DOUBLE), wkb_point[2]) AS lat
    FROM read
),
located AS (
    SELECT
        *,
        coalesce(isfinite(lon) AND isfinite(lat), false) AS has_position,
        point_to_cell(lon, lat, $resolution) AS cell
    FROM positions
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
        WHERE region IS NULL AND has_position
    )
    SEMI JOIN grid USING (cell)
),
judged AS (
    SELECT
        homes.*,
        CASE
            WHEN NOT has_position THEN 'without_position'
            WHEN region IS NOT NULL THEN 'inside'
            WHEN swapped.source_row IS NOT NULL THEN 'swapped'
            WHEN abs(lon) > 180 OR abs(lat) > 90 THEN 'out_of_range'
            ELSE 'outside'
        END AS status
    FROM homes
    LEFT JOIN swapped USING (source_row)
)
SELECT
    source_row,
    name,
    category,
    cell,
    region,
    filled,
    CASE
        WHEN status = 'inside'
            AND id IS NOT NULL
            AND row_number() OVER (PARTITION BY id, status ORDER BY source_row) > 1 THEN 'duplicate_id'
        ELSE status
    END AS status
FROM judged

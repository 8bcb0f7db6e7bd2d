-- The rows of a point source, each with its position as numbers where it has them or as text.
-- reads: poi_source (source_row and some of id, name, category, lon, lat, wkt, wkb)
-- writes: result (source_row, id, name, category, filled, lon, lat, wkb, dropped)
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
        *,
        -- POINT (x y), POINT Z (x y z), SRID=4326;POINT(x y)
        regexp_extract(
            wkt, '^(?:SRID=\d+;)?\s*POINT\s*(?:Z|M|ZM)?\s*\(\s*([^\s,()]+)\s+([^\s,()]+)', ['x', 'y'], 'i'
        ) AS wkt_point
    FROM source
)
SELECT
    source_row,
    id,
    name,
    category,
    coalesce(lon, lat) IS NOT NULL OR wkt IS NOT NULL OR wkb IS NOT NULL AS filled,
    coalesce(lon, TRY_CAST(wkt_point.x AS DOUBLE)) AS lon,
    coalesce(lat, TRY_CAST(wkt_point.y AS DOUBLE)) AS lat,
    wkb,
    NULL::VARCHAR AS dropped
FROM read

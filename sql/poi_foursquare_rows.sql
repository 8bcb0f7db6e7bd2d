-- The places of Foursquare as points; a closed place says so in dropped.
-- The category is one part of the first label 'A > B > C'.
-- reads: poi_places (source_row, id, name, lon, lat, date_closed, labels)
-- writes: result (source_row, id, name, category, filled, lon, lat, wkb, dropped)
-- parameters: $level: which part, from 1; the last one if null or beyond the last one
SELECT
    source_row,
    nullif(trim(id), '') AS id,
    nullif(trim(name), '') AS name,
    nullif(trim(coalesce(
        string_split(labels[1], '>')[$level::BIGINT],
        string_split(labels[1], '>')[-1]
    )), '') AS category,
    coalesce(lon, lat) IS NOT NULL AS filled,
    lon::DOUBLE AS lon,
    lat::DOUBLE AS lat,
    NULL::BLOB AS wkb,
    CASE WHEN nullif(trim(date_closed::VARCHAR), '') IS NOT NULL THEN 'closed' END AS dropped
FROM poi_places

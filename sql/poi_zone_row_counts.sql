-- Counts the rows of a table of POI counts by zone by what becomes of them, with the first rows of each kind.
-- reads: poi_zone_rows
-- writes: result (status, rows, pois, first_rows)
SELECT
    status,
    count(*) AS rows,
    coalesce(sum(count ORDER BY count) FILTER (WHERE status IN ('inside', 'other_region')), 0) AS pois,
    min(source_row, 5) AS first_rows
FROM poi_zone_rows
GROUP BY status
ORDER BY status

-- Counts the rows of a point source by what becomes of them, with the first rows of each kind.
-- reads: poi_points
-- writes: result (status, here, rows, filled, first_rows), where here says that the row lies in the partition
-- parameters: $region
SELECT
    status,
    coalesce(region = $region, false) AS here,
    count(*) AS rows,
    count(*) FILTER (WHERE filled) AS filled,
    min(source_row, 5) AS first_rows
FROM poi_points
GROUP BY ALL
ORDER BY ALL

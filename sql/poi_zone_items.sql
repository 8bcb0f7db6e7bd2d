-- Adds a partition's POI counts by zone, each zone's count shared out among its cells. The mass of a zone is kept.
-- reads: poi_zone_rows, zone_shares (zone, cell, share), poi_aliases (source, target), poi_categories (category, position)
-- writes: rows of poi_items
-- parameters: $other: position of the category that takes the unknown ones
INSERT INTO poi_items
WITH named AS (
    SELECT
        poi_zone_rows.zone,
        poi_zone_rows.count,
        coalesce(poi_aliases.target, poi_zone_rows.category) AS category
    FROM poi_zone_rows
    LEFT JOIN poi_aliases ON poi_aliases.source = poi_zone_rows.category
    WHERE poi_zone_rows.status = 'inside'
)
SELECT
    zone_shares.cell,
    coalesce(poi_categories.position, $other) AS category,
    poi_categories.position IS NOT NULL AS known,
    concat_ws(': ', named.category) AS text,
    0 AS points,
    -- in an order that the order of the rows does not change
    sum(named.count * zone_shares.share ORDER BY named.zone, named.count) AS weight
FROM named
JOIN zone_shares USING (zone)
LEFT JOIN poi_categories ON poi_categories.category = named.category
WHERE named.count > 0
GROUP BY ALL

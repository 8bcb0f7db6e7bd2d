-- Adds the points of a partition, gathered by cell, category and text "category: name".
-- reads: poi_points, poi_aliases (source, target), poi_categories (category, position)
-- writes: rows of poi_items
-- parameters: $region; $category: the one category of a source without a category column, or null;
--   $other: position of the category that takes the unknown ones
INSERT INTO poi_items
WITH named AS (
    SELECT
        poi_points.cell,
        poi_points.name,
        coalesce(poi_aliases.target, poi_points.category, $category::VARCHAR) AS category
    FROM poi_points
    LEFT JOIN poi_aliases ON poi_aliases.source = poi_points.category
    WHERE poi_points.status = 'inside' AND poi_points.region = $region
)
SELECT
    named.cell,
    coalesce(poi_categories.position, $other) AS category,
    poi_categories.position IS NOT NULL AS known,
    concat_ws(': ', named.category, named.name) AS text,
    count(*)::DOUBLE AS weight
FROM named
LEFT JOIN poi_categories ON poi_categories.category = named.category
GROUP BY ALL

-- Adds the points of a partition, which are gathered already.
-- reads: poi_region_points (cell, category, known, text, points), grid (cell, region)
-- writes: rows of poi_items
-- parameters: $region
INSERT INTO poi_items
SELECT
    cell,
    category,
    known,
    text,
    points,
    0 AS weight
FROM poi_region_points
SEMI JOIN (SELECT cell FROM grid WHERE region = $region) AS here USING (cell)

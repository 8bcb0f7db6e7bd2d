-- Gathers the points of a source without names by cell and category.
-- reads: poi_located (key)
-- writes: rows of poi_gathered
INSERT INTO poi_gathered
SELECT
    key,
    NULL::VARCHAR AS name,
    count(*) AS points
FROM poi_located
GROUP BY key

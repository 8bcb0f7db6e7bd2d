-- Gathers the points of a source by cell, category and name.
-- reads: poi_located (key, name)
-- writes: rows of poi_gathered
INSERT INTO poi_gathered
SELECT
    key,
    name,
    count(*) AS points
FROM poi_located
GROUP BY key, name

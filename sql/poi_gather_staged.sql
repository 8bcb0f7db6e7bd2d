-- Gathers the points of a source whose repeated identifiers are resolved by cell, category and name.
-- reads: poi_staged (key, name)
-- writes: rows of poi_gathered
INSERT INTO poi_gathered
SELECT
    key,
    name,
    count(*) AS points
FROM poi_staged
GROUP BY key, name

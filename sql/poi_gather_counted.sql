-- Adds the points of a source without names that are counted already.
-- reads: poi_counted (key, name, points)
-- writes: rows of poi_gathered
INSERT INTO poi_gathered
SELECT key, name, points
FROM poi_counted

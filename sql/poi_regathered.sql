-- Gathers the points of all sources by cell, category and name, where several sources gathered their own.
-- reads: poi_gathered (key, name, points)
-- writes: temporary table poi_gathered, the same
CREATE OR REPLACE TEMP TABLE poi_gathered AS
SELECT
    key,
    name,
    sum(points)::BIGINT AS points
FROM poi_gathered
GROUP BY key, name

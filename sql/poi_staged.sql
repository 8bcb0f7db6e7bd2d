-- Takes in the points of a source with identifiers, so that they can be looked at twice.
-- reads: poi_located (key, name, id, lon, lat)
-- writes: temporary table poi_staged, the same
CREATE OR REPLACE TEMP TABLE poi_staged AS
SELECT key, name, id, lon, lat
FROM poi_located

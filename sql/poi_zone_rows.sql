-- Judges each row of a table of POI counts by zone.
-- Every row gets one status: without_zone (identifier missing or not in the layer), bad_count (missing, negative or
-- not finite), other_region (the zone's home is another region) or inside.
-- reads: poi_source (source_row, zone, category, count), zone_home (zone, here)
-- writes: temporary table poi_zone_rows (source_row, zone, category, count, status)
CREATE OR REPLACE TEMP TABLE poi_zone_rows AS
SELECT
    poi_source.source_row,
    poi_source.zone,
    poi_source.category,
    poi_source.count,
    CASE
        WHEN zone_home.zone IS NULL THEN 'without_zone'
        WHEN poi_source.count IS NULL OR NOT isfinite(poi_source.count) OR poi_source.count < 0 THEN 'bad_count'
        WHEN NOT zone_home.here THEN 'other_region'
        ELSE 'inside'
    END AS status
FROM poi_source
LEFT JOIN zone_home USING (zone)

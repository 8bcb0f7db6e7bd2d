-- The zones of the layer, and whether this region is their home.
-- reads: zone_shares (zone, cell), grid (cell, region)
-- writes: temporary table zone_home (zone, here)
-- parameters: $region
CREATE OR REPLACE TEMP TABLE zone_home AS
SELECT
    zone_shares.zone,
    bool_or(coalesce(grid.region = $region, false)) AS here
FROM zone_shares
LEFT JOIN grid USING (cell)
GROUP BY zone_shares.zone

-- What did not match or was not usable, for one region; rows without a zone are over the whole table and layer.
-- reads: census_source (zone), layer (zone), zone_cells (zone), census_zones (zone, population), census_bins (zone, bin)
-- writes: result, one row of counts
-- parameters: $bins: bins of the histogram
SELECT
    (SELECT count(DISTINCT zone) FROM zone_cells) AS zones,
    (SELECT count(DISTINCT zone) FROM zone_cells WHERE zone NOT IN (SELECT zone FROM census_zones)) AS zones_without_row,
    (SELECT count(*) FROM census_source WHERE zone IS NULL OR zone NOT IN (SELECT zone FROM layer WHERE zone IS NOT NULL))
        AS rows_without_zone,
    (SELECT count(zone) - count(DISTINCT zone) FROM census_source) AS duplicate_ids,
    (SELECT count(*) FROM census_zones WHERE population IS NULL) AS population_missing,
    (SELECT count(*) FROM census_zones WHERE population_negative) AS population_negative,
    (SELECT count(*) FROM census_zones) * $bins - (SELECT count(*) FROM census_bins) AS bins_missing,
    (SELECT coalesce(sum(population ORDER BY zone), 0) FROM census_zones) AS population

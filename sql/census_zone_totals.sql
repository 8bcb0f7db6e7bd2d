-- Totals of a region's source zones, each zone once: what the cells have to add up to.
-- reads: census_zones (zone, population), census_bins (zone, bin, people)
-- writes: result (bin, people), sorted by bin; bin -1 is the population
SELECT -1 AS bin, coalesce(sum(population ORDER BY zone), 0) AS people FROM census_zones
UNION ALL
SELECT bin, sum(people ORDER BY zone) AS people FROM census_bins GROUP BY bin
ORDER BY bin

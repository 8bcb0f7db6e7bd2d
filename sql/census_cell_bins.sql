-- People of each cell by bin; pairs without people are left out. Sums run in zone order, so that they come out the same
-- to the last bit.
-- reads: zone_cells (zone, cell, weight), census_bins (zone, bin, people)
-- writes: result (cell, bin, people)
SELECT
    zone_cells.cell,
    census_bins.bin,
    sum(zone_cells.weight * census_bins.people ORDER BY zone) AS people
FROM zone_cells
JOIN census_bins USING (zone)
WHERE census_bins.people > 0
GROUP BY zone_cells.cell, census_bins.bin

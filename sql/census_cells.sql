-- Population of each cell: the weighted sum over its zones, and the share of the cell that zones with a known population
-- cover. A zone snapped to its nearest cell has no area there, and yet the cell has census data: its share is then
-- $least_share rather than 0. Sums run in zone order, so that they come out the same to the last bit.
-- reads: grid_cells (cell, area_km2), zone_cells (zone, cell, area_km2, weight), census_zones (zone, population)
-- writes: result (cell, population, zone_share), sorted by cell
-- parameters: $least_share: share of a cell that only snapped zones reach
WITH people AS (
    SELECT
        zone_cells.cell,
        sum(zone_cells.weight * census_zones.population ORDER BY zone) AS population,
        sum(zone_cells.area_km2 ORDER BY zone) AS area_km2
    FROM zone_cells
    JOIN census_zones USING (zone)
    WHERE census_zones.population IS NOT NULL
    GROUP BY zone_cells.cell
)
SELECT
    grid_cells.cell,
    coalesce(people.population, 0)::DOUBLE AS population,
    CASE
        WHEN people.cell IS NULL THEN 0
        ELSE greatest(least(people.area_km2 / grid_cells.area_km2, 1), $least_share)
    END::DOUBLE AS zone_share
FROM grid_cells
LEFT JOIN people USING (cell)
ORDER BY grid_cells.cell

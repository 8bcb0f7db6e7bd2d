-- Shares each zone of a layer out among its cells: by population density over the zone's area in each cell, or by the
-- weights of the crosswalk alone where they already follow the population or where nobody lives in the zone's cells.
-- reads: zone_cells (layer, zone, cell, weight), grid (cell, area_km2), census (cell, population)
-- writes: temporary table zone_shares (zone, cell, share), shares of a zone sum to 1
-- parameters: $layer; $by_population: share by density
CREATE OR REPLACE TEMP TABLE zone_shares AS
WITH layer AS (
    SELECT
        zone_cells.zone,
        zone_cells.cell,
        zone_cells.weight,
        zone_cells.weight * coalesce(census.population / grid.area_km2, 0) AS mass
    FROM zone_cells
    LEFT JOIN grid USING (cell)
    LEFT JOIN census ON $by_population AND census.cell = zone_cells.cell
    WHERE zone_cells.layer = $layer
),
totals AS (
    SELECT
        zone,
        sum(mass ORDER BY cell) AS mass
    FROM layer
    GROUP BY zone
),
shares AS (
    SELECT
        layer.zone,
        layer.cell,
        CASE WHEN totals.mass > 0 THEN layer.mass / totals.mass ELSE layer.weight END AS share
    FROM layer
    JOIN totals USING (zone)
)
SELECT zone, cell, share
FROM shares
WHERE share > 0

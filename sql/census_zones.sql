-- The people of each zone: one row a zone, first row of the file where an identifier repeats. A population that is
-- negative, infinite or not a number becomes null.
-- reads: census_source (source_row, zone, population, value_*), zone_cells (zone)
-- writes: temporary table census_zones (zone, population, population_negative, value_*)
CREATE OR REPLACE TEMP TABLE census_zones AS
SELECT
    zone,
    CASE WHEN isfinite(population) AND population >= 0 THEN population END AS population,
    coalesce(isfinite(population) AND population < 0, false) AS population_negative,
    COLUMNS('^value_')
FROM census_source
WHERE zone IN (SELECT DISTINCT zone FROM zone_cells)
QUALIFY row_number() OVER (PARTITION BY zone ORDER BY source_row) = 1

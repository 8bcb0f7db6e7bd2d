-- The people of each zone: one row a zone. A population that is negative, infinite or not a number becomes null. Of rows
-- that repeat an identifier the one with the fewest people is taken, then the one with the smallest values, column by
-- column; missing ones count as largest. The place in the file decides nothing.
-- reads: census_source (zone, population, value_*), zone_cells (zone)
-- writes: temporary table census_zones (zone, population, population_negative, value_*)
CREATE OR REPLACE TEMP TABLE census_zones AS
WITH judged AS (
    SELECT
        zone,
        CASE WHEN isfinite(population) AND population >= 0 THEN population END AS population,
        coalesce(isfinite(population) AND population < 0, false) AS population_negative,
        COLUMNS('^value_')
    FROM census_source
    WHERE zone IN (SELECT DISTINCT zone FROM zone_cells)
)
SELECT unnest(min(judged))
FROM judged
GROUP BY zone

-- People of each zone by bin. A percentage becomes people through its base; a value that is negative, infinite or not a
-- number is left out and so counts as nobody. So are all bins of a zone whose population is not known: spread without
-- their people they would make shares far above 1 in cells that hardly anybody else lives in.
-- reads: census_zones (zone, population, value_*), bins (bin, value_column, base_column or null)
-- writes: temporary table census_bins (zone, bin, people)
CREATE OR REPLACE TEMP TABLE census_bins AS
WITH long AS (
    SELECT zone, value_column, value
    FROM (UNPIVOT census_zones ON COLUMNS('^value_') INTO NAME value_column VALUE value)
    WHERE isfinite(value) AND value >= 0 AND population IS NOT NULL
)
SELECT
    long.zone,
    bins.bin,
    CASE WHEN bins.base_column IS NULL THEN long.value ELSE long.value * base.value / 100 END AS people
FROM long
JOIN bins USING (value_column)
LEFT JOIN long AS base ON base.zone = long.zone AND base.value_column = bins.base_column
WHERE bins.base_column IS NULL OR base.value IS NOT NULL

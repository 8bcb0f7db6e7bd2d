-- Judges each row of a zone-to-zone flow source.
-- Every row gets one status: bad_count (missing, negative, not finite or above 1e15), without_zone (an identifier is
-- missing or not in the layer), other_region (the origin zone's home is another region) or inside.
-- reads: mobility_source (source_row, origin, destination, count), zone_home (zone, here)
-- writes: temporary table mobility_rows (source_row, origin, destination, amount, status)
CREATE OR REPLACE TEMP TABLE mobility_rows AS
WITH matched AS (
    SELECT
        flows.*,
        coalesce(isfinite(count) AND count BETWEEN 0 AND 1e15, false) AS countable,
        home.here,
        home.zone IS NULL OR target.zone IS NULL AS unmatched
    FROM mobility_source AS flows
    LEFT JOIN zone_home AS home ON home.zone = flows.origin
    LEFT JOIN zone_home AS target ON target.zone = flows.destination
)
SELECT
    source_row,
    origin,
    destination,
    CASE WHEN countable THEN count ELSE 0 END AS amount,
    CASE
        WHEN NOT countable THEN 'bad_count'
        WHEN unmatched THEN 'without_zone'
        WHEN NOT here THEN 'other_region'
        ELSE 'inside'
    END AS status
FROM matched

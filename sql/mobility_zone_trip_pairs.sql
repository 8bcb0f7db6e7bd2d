-- Gathers the trips between zones of people by pair of zones.
-- reads: mobility_bounded, mobility_pairs (from mobility_zone_trips)
-- writes: temporary table mobility_zone_pairs (status, origin, destination, rows, weight, people)
CREATE OR REPLACE TEMP TABLE mobility_zone_pairs AS
SELECT
    'counted' AS status,
    src AS origin,
    dst AS destination,
    sum(movements)::BIGINT AS rows,
    sum(movements)::DECIMAL(38, 18) AS weight,
    count(*)::DOUBLE AS people
FROM mobility_bounded
GROUP BY src, dst
UNION ALL
SELECT
    status,
    NULL AS origin,
    NULL AS destination,
    sum(movements)::BIGINT AS rows,
    sum(movements)::DECIMAL(38, 18) AS weight,
    0 AS people
FROM mobility_pairs
WHERE status = 'without_person'
GROUP BY status

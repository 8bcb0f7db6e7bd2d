-- Says which region each flow between two zones starts in, and what becomes of it.
-- Counted pairs become without_zone (an identifier is missing or not in the layer) or inside; flows inside are below_k
-- (fewer than k people) or kept, those without weight neither.
-- reads: mobility_zone_pairs, zone_home (zone, region)
-- writes: temporary table mobility_flows (status, fate, region, destination_region, origin, destination, rows, weight,
--   people)
-- parameters: $minimum_people
CREATE OR REPLACE TEMP TABLE mobility_flows AS
WITH homes AS (
    SELECT
        CASE
            WHEN pairs.status <> 'counted' THEN pairs.status
            WHEN home.zone IS NULL OR target.zone IS NULL THEN 'without_zone'
            ELSE 'inside'
        END AS status,
        home.region,
        target.region AS destination_region,
        pairs.origin,
        pairs.destination,
        pairs.rows,
        pairs.weight,
        pairs.people
    FROM mobility_zone_pairs AS pairs
    LEFT JOIN zone_home AS home ON home.zone = pairs.origin
    LEFT JOIN zone_home AS target ON target.zone = pairs.destination
)
SELECT
    status,
    CASE
        WHEN status <> 'inside' OR weight = 0 THEN NULL
        WHEN people < $minimum_people THEN 'below_k'
        ELSE 'kept'
    END AS fate,
    region,
    destination_region,
    origin,
    destination,
    rows,
    weight,
    people
FROM homes

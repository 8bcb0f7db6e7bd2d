-- The published flows that start in a region.
-- reads: mobility_zone_flows
-- writes: result (source, origin, destination, destination_region, weight, people)
-- parameters: $region
SELECT source, origin, destination, destination_region, weight, people
FROM mobility_zone_flows
WHERE region = $region
ORDER BY source, origin, destination

-- Adds the published flows of a source.
-- reads: mobility_published_flows
-- writes: rows of mobility_zone_flows
-- parameters: $source: name of the source
INSERT INTO mobility_zone_flows
SELECT $source AS source, region, destination_region, origin, destination, weight, people
FROM mobility_published_flows

-- The flows of a source that leave the step as they are, where no noise is added.
-- reads: mobility_flows
-- writes: temporary view mobility_published_flows (region, destination_region, origin, destination, weight, people)
CREATE OR REPLACE TEMP VIEW mobility_published_flows AS
SELECT region, destination_region, origin, destination, weight::DOUBLE AS weight, people
FROM mobility_flows
WHERE fate = 'kept'

-- The flows of a source that noise is added to, rounded: noise is whole numbers.
-- reads: mobility_flows
-- writes: result (region, destination_region, origin, destination, weight, people)
SELECT
    region,
    destination_region,
    origin,
    destination,
    floor(weight::DOUBLE + 0.5) AS weight,
    floor(people) AS people
FROM mobility_flows
WHERE fate = 'kept'

-- Opens the table that every zone-to-zone source adds its flows to.
-- reads: nothing
-- writes: temporary table mobility_zone_flows (source, region, destination_region, origin, destination, weight, people)
CREATE OR REPLACE TEMP TABLE mobility_zone_flows (
    source VARCHAR,
    region VARCHAR,
    destination_region VARCHAR,
    origin VARCHAR,
    destination VARCHAR,
    weight DOUBLE,
    people DOUBLE
)

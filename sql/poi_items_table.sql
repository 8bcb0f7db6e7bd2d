-- Opens the table that every POI source of a partition adds to.
-- reads: nothing
-- writes: temporary table poi_items (cell, category: position in the profile's order, known, text, weight)
CREATE OR REPLACE TEMP TABLE poi_items (
    cell UBIGINT,
    category BIGINT,
    known BOOLEAN,
    text VARCHAR,
    weight DOUBLE
)

-- Opens the table that the points and the counts by zone of a partition are added to.
-- reads: nothing
-- writes: temporary table poi_items (cell, category: position in the profile's order, known, text, points: whole POIs,
--   weight: fractions of POIs)
CREATE OR REPLACE TEMP TABLE poi_items (
    cell UBIGINT,
    category BIGINT,
    known BOOLEAN,
    text VARCHAR,
    points BIGINT,
    weight DOUBLE
)

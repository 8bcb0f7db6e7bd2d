-- Opens the table that every point source of the deployment adds to.
-- reads: nothing
-- writes: temporary table poi_gathered (key: number of the cell << 32 | code of the category, name, points)
CREATE OR REPLACE TEMP TABLE poi_gathered (
    key UBIGINT,
    name VARCHAR,
    points BIGINT
)

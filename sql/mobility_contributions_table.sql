-- Opens the table that every mobility source of a partition adds its edges to.
-- reads: nothing
-- writes: temporary table mobility_contributions (src, dst, weight, people)
CREATE OR REPLACE TEMP TABLE mobility_contributions (
    src UBIGINT,
    dst UBIGINT,
    weight DECIMAL(38, 18),
    people DOUBLE
)

-- All movements that are kept, where no noise calls for bounds on what one person contributes.
-- reads: mobility_pairs
-- writes: temporary table mobility_bounded (person, src, dst, movements)
CREATE OR REPLACE TEMP TABLE mobility_bounded AS
SELECT person, src, dst, movements
FROM mobility_pairs
WHERE status = 'kept'

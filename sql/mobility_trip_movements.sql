-- Movements that start in a region: its trips.
-- reads: mobility_rows (from mobility_trips)
-- writes: temporary table mobility_movements (person, src, dst, status)
CREATE OR REPLACE TEMP TABLE mobility_movements AS
SELECT
    person,
    src,
    dst,
    'kept' AS status
FROM mobility_rows
WHERE status = 'inside'

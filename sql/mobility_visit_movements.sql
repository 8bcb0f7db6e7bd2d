-- Movements that start in a region: consecutive visits of a person. Visits at the same time are ordered by cell.
-- Every movement gets one status: after_window (too long between the visits), leaving (ends in no region) or kept.
-- reads: mobility_rows (from mobility_visits)
-- writes: temporary table mobility_movements (person, src, dst, status)
-- parameters: $region; $window_hours: longest time between two visits
CREATE OR REPLACE TEMP TABLE mobility_movements AS
WITH usable AS (
    SELECT person, time, cell, region
    FROM mobility_rows
    WHERE status IN ('inside', 'outside')
),
-- only people seen in the region can start a movement there: the rest never reach the sort
visitors AS (
    SELECT DISTINCT person
    FROM usable
    WHERE region = $region
),
steps AS (
    SELECT
        person,
        time,
        cell AS src,
        region AS src_region,
        lead(cell) OVER following AS dst,
        lead(region) OVER following AS dst_region,
        lead(time) OVER following AS next_time
    FROM usable
    SEMI JOIN visitors USING (person)
    WINDOW following AS (PARTITION BY person ORDER BY time, cell)
)
SELECT
    person,
    src,
    dst,
    CASE
        WHEN epoch_us(next_time) - epoch_us(time) > $window_hours * 3600e6 THEN 'after_window'
        WHEN dst_region IS NULL THEN 'leaving'
        ELSE 'kept'
    END AS status
FROM steps
WHERE src_region = $region AND dst IS NOT NULL

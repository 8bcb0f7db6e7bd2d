-- The movements of the people of one bucket: consecutive visits of a person. Visits at the same time are ordered by
-- cell, and the same visit twice counts once.
-- Every movement gets one status: duplicate or duplicate_outside (the same visit again, in a region or not), outside
-- (starts in no region), after_window (too long between the visits), leaving (ends in no region) or kept; the kept ones
-- are counted by person, origin and destination.
-- reads: mobility_bucket (person, time_us, cell, inside), all visits of its people
-- writes: temporary table mobility_pairs (status, person, src, dst, movements)
-- parameters: $window_hours: longest time between two visits
CREATE OR REPLACE TEMP TABLE mobility_pairs AS
WITH steps AS (
    SELECT
        person,
        time_us,
        cell AS src,
        inside AS src_inside,
        lead(time_us) OVER following AS next_time_us,
        lead(cell) OVER following AS dst,
        lead(inside) OVER following AS dst_inside
    FROM mobility_bucket
    WINDOW following AS (PARTITION BY person ORDER BY time_us, cell)
),
judged AS (
    SELECT
        *,
        CASE
            WHEN next_time_us = time_us AND dst = src THEN CASE WHEN src_inside THEN 'duplicate' ELSE 'duplicate_outside' END
            WHEN NOT src_inside THEN 'outside'
            WHEN next_time_us - time_us > $window_hours * 3600e6 THEN 'after_window'
            WHEN NOT dst_inside THEN 'leaving'
            ELSE 'kept'
        END AS status
    FROM steps
    WHERE dst IS NOT NULL
)
SELECT
    status,
    CASE WHEN status = 'kept' THEN person END AS person,
    CASE WHEN status = 'kept' THEN src END AS src,
    CASE WHEN status = 'kept' THEN dst END AS dst,
    count(*) AS movements
FROM judged
GROUP BY ALL

-- The trips of one bucket, counted by person, origin and destination.
-- reads: mobility_bucket (person, src, dst), all trips of its people
-- writes: temporary table mobility_pairs (status, person, src, dst, movements)
CREATE OR REPLACE TEMP TABLE mobility_pairs AS
SELECT
    'kept' AS status,
    person,
    src,
    dst,
    count(*) AS movements
FROM mobility_bucket
GROUP BY person, src, dst

-- The trips between zones of people, counted by person, origin and destination.
-- Every trip gets one status: without_person or kept.
-- reads: mobility_source (source_row, origin, destination, person)
-- writes: temporary table mobility_pairs (status, person, src, dst, movements)
CREATE OR REPLACE TEMP TABLE mobility_pairs AS
SELECT
    CASE WHEN person IS NULL THEN 'without_person' ELSE 'kept' END AS status,
    person,
    origin AS src,
    destination AS dst,
    count(*) AS movements
FROM mobility_source
GROUP BY ALL

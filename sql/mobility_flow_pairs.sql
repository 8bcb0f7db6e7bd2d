-- Gathers the rows of a zone-to-zone source by pair of zones.
-- Every row gets one status: bad_count (missing, negative, not finite or above 1e15), not_selected (of a kind that the
-- profile leaves out) or counted. Rows of one occasion count different people, so they add up; rows of two occasions may
-- count the same people, so the people vouched for are those of the largest.
-- reads: mobility_source (source_row, origin, destination and maybe count, occasion, kind)
-- writes: temporary table mobility_zone_pairs (status, origin, destination, rows, weight, people)
-- parameters: $code_digits: length of published codes, null for any; $zone_digits: leading digits that name a zone, null
--   for all; $kinds: kinds to keep, null for all; $occasion: row (each row is one), file (each file, its number is in the
--   bits of source_row from $file_bits), named (by the column) or trip (each row counts one, and all are one occasion)
CREATE OR REPLACE TEMP TABLE mobility_zone_pairs AS
WITH source AS (
    SELECT NULL::DOUBLE AS count, NULL::VARCHAR AS occasion, NULL::VARCHAR AS kind
    WHERE false
    UNION ALL BY NAME
    SELECT * FROM mobility_source
),
counted AS (
    SELECT
        * REPLACE (
            CASE WHEN $occasion = 'trip' THEN 1 ELSE count END AS count,
            CASE $occasion WHEN 'named' THEN occasion WHEN 'file' THEN (source_row >> $file_bits)::VARCHAR END
                AS occasion
        )
    FROM source
),
judged AS (
    SELECT
        CASE
            WHEN $code_digits IS NULL OR regexp_full_match(origin, '[0-9]{' || $code_digits || '}')
                THEN CASE WHEN $zone_digits IS NULL THEN origin ELSE left(origin, $zone_digits) END
        END AS origin,
        CASE
            WHEN $code_digits IS NULL OR regexp_full_match(destination, '[0-9]{' || $code_digits || '}')
                THEN CASE WHEN $zone_digits IS NULL THEN destination ELSE left(destination, $zone_digits) END
        END AS destination,
        occasion,
        CASE WHEN isfinite(count) AND count BETWEEN 0 AND 1e15 THEN count ELSE 0 END::DECIMAL(38, 18) AS amount,
        CASE
            WHEN NOT coalesce(isfinite(count) AND count BETWEEN 0 AND 1e15, false) THEN 'bad_count'
            WHEN $kinds IS NOT NULL AND NOT coalesce(list_contains($kinds, kind), false) THEN 'not_selected'
            ELSE 'counted'
        END AS status
    FROM counted
),
occasions AS (
    SELECT
        status,
        origin,
        destination,
        occasion,
        count(*) AS rows,
        -- decimals add up to the same sum in any order
        sum(amount) AS weight,
        max(amount) AS largest
    FROM judged
    GROUP BY status, origin, destination, occasion
)
-- without occasions the pairs are already gathered
SELECT
    status,
    origin,
    destination,
    rows,
    weight,
    CASE WHEN $occasion = 'row' THEN largest ELSE weight END::DOUBLE AS people
FROM occasions
WHERE $occasion IN ('row', 'trip')
UNION ALL
SELECT
    status,
    origin,
    destination,
    sum(rows)::BIGINT AS rows,
    sum(weight) AS weight,
    max(weight)::DOUBLE AS people
FROM occasions
WHERE $occasion IN ('file', 'named')
GROUP BY status, origin, destination

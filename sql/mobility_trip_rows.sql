-- The rows of a trips source, as they are located batch by batch.
-- reads: mobility_source (source_row, origin_lon, origin_lat, destination_lon, destination_lat and maybe person)
-- writes: result (source_row, person: null where the source has none, spread: hash of the person or the origin, positions)
-- parameters: $with_person: the source has people
WITH source AS (
    SELECT NULL::INTEGER AS person
    WHERE false
    UNION ALL BY NAME
    SELECT * FROM mobility_source
)
SELECT
    source_row,
    person,
    CASE WHEN $with_person THEN hash(person) ELSE hash(origin_lon, origin_lat) END AS spread,
    origin_lon,
    origin_lat,
    destination_lon,
    destination_lat
FROM source

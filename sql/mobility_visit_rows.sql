-- The rows of a visits source, as they are located batch by batch.
-- reads: mobility_source (source_row, person, time, lon, lat)
-- writes: result (source_row, person, spread: hash of the person, time_us: null where not finite, lon, lat)
SELECT
    source_row,
    person,
    hash(person) AS spread,
    CASE WHEN isfinite(time) THEN epoch_us(time) END AS time_us,
    lon,
    lat
FROM mobility_source

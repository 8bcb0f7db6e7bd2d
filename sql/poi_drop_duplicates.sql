-- Keeps one row of each identifier that repeats: the first by longitude, latitude, category and name, whatever the
-- order of the rows.
-- reads: poi_staged (key, name, id, lon, lat), poi_words (code, category)
-- writes: poi_staged; result: the number of rows deleted
DELETE FROM poi_staged
WHERE rowid IN (
    WITH repeated AS (
        -- a hash is enough to find the few rows worth comparing, and small enough to count all of them
        SELECT hash(id) AS id_hash
        FROM poi_staged
        WHERE id IS NOT NULL
        GROUP BY id_hash
        HAVING count(*) > 1
    ),
    ranked AS (
        SELECT
            poi_staged.rowid AS place,
            row_number() OVER (
                PARTITION BY poi_staged.id
                ORDER BY poi_staged.lon, poi_staged.lat, poi_words.category NULLS LAST, poi_staged.name NULLS LAST
            ) AS number
        FROM poi_staged
        SEMI JOIN repeated ON hash(poi_staged.id) = repeated.id_hash
        JOIN poi_words ON poi_words.code = poi_staged.key & 4294967295
        WHERE poi_staged.id IS NOT NULL
    )
    SELECT place
    FROM ranked
    WHERE number > 1
)

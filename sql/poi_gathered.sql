-- All gathered points, in the order in which they are written.
-- reads: poi_gathered (key, name, points), poi_words (code, category, position, known, rank)
-- writes: result (number: of the cell, category: position in the profile's order, known, text "category: name", points)
WITH joined AS (
    SELECT
        key,
        name,
        sum(points)::BIGINT AS points
    FROM poi_gathered
    GROUP BY key, name
)
SELECT
    (joined.key >> 32)::UINTEGER AS number,
    poi_words.position AS category,
    poi_words.known,
    concat_ws(': ', poi_words.category, joined.name) AS text,
    joined.points
FROM joined
JOIN poi_words ON poi_words.code = joined.key & 4294967295
-- numbers are faster to sort by than texts; a key and a name occur once
ORDER BY number, poi_words.rank, joined.name NULLS FIRST

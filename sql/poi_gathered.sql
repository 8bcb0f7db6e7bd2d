-- All gathered points, in the order in which they are written.
-- reads: poi_gathered (key, name, points), poi_words (code, category, position, known, rank)
-- writes: result (number: of the cell, category: position in the profile's order, known, text "category: name", points)
SELECT
    (poi_gathered.key >> 32)::UINTEGER AS number,
    poi_words.position AS category,
    poi_words.known,
    concat_ws(': ', poi_words.category, poi_gathered.name) AS text,
    poi_gathered.points
FROM poi_gathered
JOIN poi_words ON poi_words.code = poi_gathered.key & 4294967295
-- numbers are faster to sort by than texts; a key and a name occur once
ORDER BY number, poi_words.rank, poi_gathered.name NULLS FIRST

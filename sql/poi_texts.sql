-- POIs by cell and text.
-- reads: poi_items
-- writes: result (cell, text, weight)
SELECT
    cell,
    text,
    sum(weight ORDER BY category, weight) AS weight
FROM poi_items
GROUP BY cell, text
ORDER BY cell, text

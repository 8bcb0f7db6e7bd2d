-- POIs by cell and category.
-- reads: poi_items
-- writes: result (cell, category, count, unknown: the part of count whose category the profile does not know)
SELECT
    cell,
    category,
    -- sums of fractions in a fixed order, so that the same input gives the same bytes
    sum(weight ORDER BY text, weight) AS count,
    coalesce(sum(weight ORDER BY text, weight) FILTER (WHERE NOT known), 0) AS unknown
FROM poi_items
GROUP BY cell, category
ORDER BY cell, category

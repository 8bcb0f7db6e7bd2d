-- POIs by cell and text, without those of suppressed counts.
-- reads: poi_items, poi_counts (cell, category, suppressed)
-- writes: result (cell, text, weight)
SELECT
    poi_items.cell,
    poi_items.text,
    (
        sum(poi_items.points)
        + coalesce(
            sum(poi_items.weight ORDER BY poi_items.category, poi_items.weight) FILTER (WHERE poi_items.weight > 0), 0
        )
    )::DOUBLE AS weight
FROM poi_items
JOIN poi_counts USING (cell, category)
WHERE NOT poi_counts.suppressed
GROUP BY poi_items.cell, poi_items.text
ORDER BY poi_items.cell, poi_items.text

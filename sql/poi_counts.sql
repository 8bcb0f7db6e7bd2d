-- POIs by cell and category, and whether there are too few of them to show.
-- reads: poi_items
-- writes: temporary table poi_counts (cell, category, count, unknown: the part of count whose category the profile does
--   not know, suppressed)
-- parameters: $minimum: a smaller count is suppressed
CREATE OR REPLACE TEMP TABLE poi_counts AS
WITH sums AS (
    SELECT
        cell,
        category,
        -- sums of fractions in a fixed order, so that the same input gives the same bytes; whole numbers need none
        sum(points) + coalesce(sum(weight ORDER BY text, weight) FILTER (WHERE weight > 0), 0) AS count,
        coalesce(sum(points) FILTER (WHERE NOT known), 0)
        + coalesce(sum(weight ORDER BY text, weight) FILTER (WHERE weight > 0 AND NOT known), 0) AS unknown
    FROM poi_items
    GROUP BY cell, category
)
SELECT
    cell,
    category,
    count::DOUBLE AS count,
    unknown::DOUBLE AS unknown,
    count < $minimum AS suppressed
FROM sums
ORDER BY cell, category

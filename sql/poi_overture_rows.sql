-- The places of Overture Maps as points; a place closed for good or too unsure says so in dropped.
-- reads: poi_places (source_row, id, name, category, hierarchy, confidence, operating_status, wkb)
-- writes: result (source_row, id, name, category, filled, lon, lat, wkb, dropped)
-- parameters: $min_confidence
SELECT
    source_row,
    nullif(trim(id), '') AS id,
    nullif(trim(name), '') AS name,
    -- the hierarchy goes from the most general to the most specific
    nullif(trim(coalesce(hierarchy[1], category)), '') AS category,
    wkb IS NOT NULL AS filled,
    NULL::DOUBLE AS lon,
    NULL::DOUBLE AS lat,
    wkb,
    CASE
        WHEN operating_status = 'permanently_closed' THEN 'closed'
        WHEN coalesce(if(isfinite(confidence), confidence, 0), 0) < $min_confidence THEN 'low_confidence'
    END AS dropped
FROM poi_places

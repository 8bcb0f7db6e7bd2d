-- Macro of the catalog: what is known of one cell. With DuckDB's h3 extension: place(h3_latlng_to_cell(lat, lon, 6)).
-- reads: embeddings, grid_cells
-- writes: macro place
CREATE OR REPLACE MACRO place(wanted) AS TABLE
SELECT g.lon, g.lat, g.area_km2, g.coverage, e.*
FROM embeddings AS e
JOIN grid_cells AS g ON g.cell = e.cell
WHERE e.cell = wanted;

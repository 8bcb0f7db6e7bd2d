-- Macro of the catalog: the mean vector of each region, its cells weighted by their area inside it.
-- reads: embeddings, grid_cells
-- writes: macro region_vectors
CREATE OR REPLACE MACRO region_vectors() AS TABLE
WITH numbers AS (
    SELECT e.region, g.area_km2 * g.coverage AS weight,
        unnest(e.vector) AS value, generate_subscripts(e.vector, 1) AS dimension
    FROM embeddings AS e
    JOIN grid_cells AS g ON g.cell = e.cell
),
means AS (
    SELECT region, dimension, sum(weight * value) / sum(weight) AS mean
    FROM numbers
    GROUP BY region, dimension
)
SELECT region, list(mean ORDER BY dimension) AS vector
FROM means
GROUP BY region
ORDER BY region;

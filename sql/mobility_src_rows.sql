-- Counts the parts of edges by cell of origin, to cut a large region into slices.
-- reads: mobility_parts (region, src, dst, movements, people), from mobility_bucket_edges
-- writes: result (src, rows), by src
-- parameters: $region: number of the region
SELECT
    src,
    count(*) AS rows
FROM mobility_parts
WHERE region = $region
GROUP BY src
ORDER BY src

-- Gathers the movements of one bucket into edges, with the region of origin. A person is in one bucket, so that the
-- people of an edge add up over buckets.
-- reads: mobility_bounded, cell_regions (cell, region: number of the region)
-- writes: result (region: its number, src, dst, movements, people)
-- parameters: $with_person: else every movement counts as a person
SELECT
    cell_regions.region,
    pairs.src,
    pairs.dst,
    sum(pairs.movements)::BIGINT AS movements,
    CASE WHEN $with_person THEN count(*) ELSE sum(pairs.movements) END::BIGINT AS people
FROM mobility_bounded AS pairs
JOIN cell_regions ON cell_regions.cell = pairs.src
GROUP BY cell_regions.region, pairs.src, pairs.dst

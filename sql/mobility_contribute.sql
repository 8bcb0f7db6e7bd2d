-- Adds the published edges of a source.
-- reads: mobility_published
-- writes: rows of mobility_contributions
INSERT INTO mobility_contributions
SELECT src, dst, weight, people
FROM mobility_published

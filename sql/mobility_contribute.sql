-- Adds the kept edges of a source.
-- reads: mobility_judged
-- writes: rows of mobility_contributions
INSERT INTO mobility_contributions
SELECT src, dst, weight, people
FROM mobility_judged
WHERE fate = 'kept'

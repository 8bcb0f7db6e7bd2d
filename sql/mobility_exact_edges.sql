-- The edges of a source that noise is added to.
-- reads: mobility_judged
-- writes: result (src, dst, weight, people)
SELECT src, dst, weight::DOUBLE AS weight, people
FROM mobility_judged
WHERE fate = 'kept'

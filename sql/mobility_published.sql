-- The edges of a source that leave the step as they are, where no noise is added.
-- reads: mobility_judged
-- writes: temporary view mobility_published (src, dst, weight, people)
CREATE OR REPLACE TEMP VIEW mobility_published AS
SELECT src, dst, weight, people
FROM mobility_judged
WHERE fate = 'kept'

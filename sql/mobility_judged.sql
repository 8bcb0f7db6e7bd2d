-- Decides which edges of a source leave the step: self_loop (where the profile drops them), below_k (fewer than k
-- people) or kept.
-- reads: mobility_candidates
-- writes: temporary table mobility_judged (src, dst, weight, people, fate)
-- parameters: $minimum_people; $self_loops: keep edges from a cell to itself
CREATE OR REPLACE TEMP TABLE mobility_judged AS
SELECT
    *,
    CASE
        WHEN src = dst AND NOT $self_loops THEN 'self_loop'
        WHEN people < $minimum_people THEN 'below_k'
        ELSE 'kept'
    END AS fate
FROM mobility_candidates

-- Counts the movements within the bounds on what one person contributes.
-- reads: mobility_bounded
-- writes: result (movements), one row
SELECT coalesce(sum(movements), 0)::BIGINT AS movements
FROM mobility_bounded

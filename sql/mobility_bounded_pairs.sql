-- Bounds what one person contributes: at most so many edges, and on them at most so many movements. Which edges stay is
-- decided by a hash of their content, and depends on nobody else's movements. Loops that are dropped later do not count.
-- reads: mobility_pairs
-- writes: temporary table mobility_bounded (person, src, dst, movements)
-- parameters: $max_edges; $max_movements; $self_loops: keep edges from a cell to itself
CREATE OR REPLACE TEMP TABLE mobility_bounded AS
WITH kept AS (
    SELECT person, src, dst, movements, src = dst AND NOT $self_loops AS loop
    FROM mobility_pairs
    WHERE status = 'kept'
),
ranked AS (
    SELECT
        *,
        row_number() OVER turns AS turn,
        sum(movements) OVER turns - movements AS before
    FROM kept
    WHERE NOT loop
    WINDOW turns AS (
        PARTITION BY person
        ORDER BY md5(concat_ws('|', person, src, dst)), src, dst
        ROWS UNBOUNDED PRECEDING
    )
)
SELECT person, src, dst, least(movements, $max_movements - before)::BIGINT AS movements
FROM ranked
WHERE turn <= $max_edges AND before < $max_movements
UNION ALL
SELECT person, src, dst, movements
FROM kept
WHERE loop

-- Counts the rows of a mobility source by what becomes of them, with the first rows of each kind.
-- reads: mobility_rows
-- writes: result (status, rows, amount: people or movements in the rows, first_rows)
SELECT
    status,
    count(*) AS rows,
    sum(amount::DECIMAL(38, 18))::DOUBLE AS amount,
    min(source_row, 5) AS first_rows
FROM mobility_rows
GROUP BY status
ORDER BY status

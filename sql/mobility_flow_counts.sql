-- Counts the zone-to-zone flows of a region, and those of fewer than k people, which are dropped.
-- reads: mobility_flows
-- writes: result (flows, rows_repeated, flows_below_k, weight_below_k), one row
-- parameters: $minimum_people
SELECT
    count(*) AS flows,
    coalesce(sum(rows), 0)::BIGINT - count(*) AS rows_repeated,
    count(*) FILTER (WHERE people < $minimum_people) AS flows_below_k,
    coalesce(sum(weight) FILTER (WHERE people < $minimum_people), 0)::DOUBLE AS weight_below_k
FROM mobility_flows

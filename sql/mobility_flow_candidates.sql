-- Spreads zone-to-zone flows over cells: flow(o, d) x share of cell in o x share of cell in d. Mass is kept.
-- Destinations first, gathered by origin zone and cell, so that the largest join stays small.
-- reads: mobility_region (source, origin, destination, weight, people), zone_shares (zone, cell, share)
-- writes: temporary table mobility_candidates (src, dst, weight, people: those of the smallest flow in the edge)
-- parameters: $source: name of the source
CREATE OR REPLACE TEMP TABLE mobility_candidates AS
WITH arrivals AS (
    SELECT
        flows.origin,
        shares.cell AS dst,
        sum((flows.weight * shares.share)::DECIMAL(38, 18)) AS weight,
        min(flows.people) AS people
    FROM mobility_region AS flows
    JOIN zone_shares AS shares ON shares.zone = flows.destination
    WHERE flows.source = $source
    GROUP BY flows.origin, shares.cell
)
SELECT
    shares.cell AS src,
    arrivals.dst,
    sum((arrivals.weight::DOUBLE * shares.share)::DECIMAL(38, 18)) AS weight,
    min(arrivals.people) AS people
FROM arrivals
JOIN zone_shares AS shares ON shares.zone = arrivals.origin
GROUP BY shares.cell, arrivals.dst

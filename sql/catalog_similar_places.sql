-- Macro of the catalog: the cells most like one, by the cosine of the angle between vectors.
-- reads: embeddings
-- writes: macro similar_places
CREATE OR REPLACE MACRO similar_places(wanted, k) AS TABLE
SELECT e.cell, e.region, list_cosine_similarity(e.vector, p.vector) AS similarity
FROM embeddings AS e, (SELECT vector FROM embeddings WHERE cell = wanted) AS p
WHERE e.cell <> wanted
ORDER BY similarity DESC, e.cell
LIMIT k;

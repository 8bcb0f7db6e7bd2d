-- One view of the published catalog over the Parquet files of a table; partitioned tables show their region.
-- {view} is a quoted identifier, {files} a quoted literal: a view cannot take bound parameters.
-- reads: the Parquet files {files}
-- writes: view {view}
CREATE OR REPLACE VIEW {view} AS
SELECT *
FROM read_parquet({files}, hive_partitioning = {partitioned}, hive_types_autocast = false);

"""GeoBench: labels, representations, splits, probes and scores."""

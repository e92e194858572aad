"""Who does the work: each runs the same worker over the shards that are missing."""

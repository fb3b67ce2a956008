"""The curator: from published documents and generated batches to shards that may be trained on."""

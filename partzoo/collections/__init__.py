"""Collections of any number of images: sources, stages that compute rows, and results in shards with a manifest."""

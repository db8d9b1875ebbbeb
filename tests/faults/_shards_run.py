"""Write a result with two workers: ``python -m tests.faults._shards_run ENGINE IMAGES OUT PER_SHARD``."""

import sys

from partzoo.collections.run import write_collection
from tests.helpers.plain_stages import Means

if __name__ == "__main__":
    engine, images, out, per_shard = sys.argv[1:]
    write_collection(images, Means("means"), out, engine=engine, workers=2, per_shard=int(per_shard))

#!/usr/bin/env bash
# safetensors 0.8.0, on Linux with Python 3.11: the same tensors and the same metadata of three entries are serialized 200
# times in one process. One would expect 200 equal files, as with no metadata or one entry; but the entries of the metadata
# are written in an order that changes from call to call, so the files differ, and so do their sha256.
# Observed: without metadata 1, with one entry 1, with three entries 6 (all orders of three entries).
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.4.6
cd "$place"
seen=$(venv/bin/python -c '
import numpy
from safetensors.numpy import save
tensors = {"a": numpy.zeros(2, "float32")}
for names in ("", "x", "xyz"):
    metadata = {name: "1" for name in names} or None
    print(len({save(tensors, metadata) for _ in range(200)}), end=" ")
')
if [ "$seen" != "1 1 6 " ]; then echo "It has changed: $seen"; exit 1; fi

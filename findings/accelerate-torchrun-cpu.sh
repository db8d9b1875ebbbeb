#!/usr/bin/env bash
# accelerate 1.15.0 with torch 2.13.0, Python 3.11, Linux without a GPU: two processes that
# `python -m torch.distributed.run --nproc-per-node 2` starts join one process group, and yet each gets
# Accelerator().num_processes == 1 and is_main_process == True. Without a GPU, PartialState finds no backend unless it is
# given cpu=True (or ACCELERATE_USE_CPU=true); it initializes torch.distributed all the same, and then reports no
# distribution. Each process trains alone, on all the data, and writes the same files. One would expect gloo and two
# processes, which is what Accelerator(cpu=True) gives, or an error.
# Observed, in the order of the processes:
#   torch: rank 0 of 2, accelerate: process 0 of 1, main True
#   torch: rank 1 of 2, accelerate: process 0 of 1, main True
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet accelerate==1.15.0 torch==2.13.0 numpy==2.4.6
cd "$place"
cat >script.py <<'END'
import os
import sys
import torch
from accelerate import Accelerator

one = Accelerator()
group = torch.distributed
sys.stdout.write(
    f"torch: rank {group.get_rank()} of {group.get_world_size()}, accelerate: process {one.process_index} of "
    f"{one.num_processes}, main {one.is_main_process}\n"
)
END
seen=$(env -u ACCELERATE_USE_CPU CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 \
  venv/bin/python -m torch.distributed.run --standalone --nproc-per-node 2 script.py | sort)
expected="torch: rank 0 of 2, accelerate: process 0 of 1, main True
torch: rank 1 of 2, accelerate: process 0 of 1, main True"
if [ "$seen" != "$expected" ]; then echo "It has changed: $seen"; exit 1; fi

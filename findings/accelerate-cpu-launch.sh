#!/usr/bin/env bash
# accelerate 1.15.0 with torch 2.13.0, Python 3.11, Linux: `accelerate launch --cpu --num_processes 2 script.py` starts
# one process, without a warning. Every launch with --cpu goes to simple_launcher, which sets MASTER_ADDR and MASTER_PORT
# as for several processes, but neither WORLD_SIZE nor RANK, and calls the script once; only --mpirun_hostfile, which
# needs MPI, starts more. One would expect two processes that talk by gloo, as PartialState(cpu=True) supports, or an
# error. Observed, of one line for each process:
#   process 0 of 1, MASTER_PORT 29617, WORLD_SIZE None
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet accelerate==1.15.0 torch==2.13.0 numpy==2.4.6
cd "$place"
cat >script.py <<'END'
import os
from accelerate import PartialState

state = PartialState()
port, size = (os.environ.get(name) for name in ("MASTER_PORT", "WORLD_SIZE"))
print(f"process {state.process_index} of {state.num_processes}, MASTER_PORT {port}, WORLD_SIZE {size}", flush=True)
END
seen=$(env -u WORLD_SIZE -u RANK -u LOCAL_RANK HF_HOME="$place" \
  venv/bin/accelerate launch --cpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no \
  --main_process_port 29617 script.py)
if [ "$seen" != "process 0 of 1, MASTER_PORT 29617, WORLD_SIZE None" ]; then echo "It has changed: $seen"; exit 1; fi

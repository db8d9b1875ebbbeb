#!/usr/bin/env bash
# Ray 2.60.0 on Linux: processes that Ray starts run with a niceness of 15, though the program that started Ray has 0.
#
# Where other programs keep the cores busy, a worker gets about a thirtieth of the time that the kernel gives to a program
# of niceness 0, so a job of Ray Data stands nearly still while its driver waits. Seen here with two cores and three busy
# programs: a job of a few seconds took two minutes.
# `RAY_worker_niceness=0` in the driver's environment changes that; `renice -p` of a worker's process does not, because on
# Linux niceness belongs to each thread. Output seen: "driver 0, workers 15, with RAY_worker_niceness=0: 0".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q "ray==2.60.0"

cat > "$place/niceness.py" <<'PYTHON'
import logging
import os

import ray

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
print(os.nice(0), ray.get(ray.remote(lambda: os.nice(0)).remote()))
PYTHON

cd "$place"
export RAY_USAGE_STATS_ENABLED=0
plain=$("$place/venv/bin/python" niceness.py | tail -1)
changed=$(RAY_worker_niceness=0 "$place/venv/bin/python" niceness.py | tail -1)
echo "driver ${plain% *}, workers ${plain#* }, with RAY_worker_niceness=0: ${changed#* }"
[ "$plain" = "0 15" ] && [ "$changed" = "0 0" ] || { echo "This has changed." >&2; exit 1; }

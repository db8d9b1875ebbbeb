#!/usr/bin/env bash
# Use ten minutes of a GPU that has no network and takes and returns little data (docs/training.md).
#
#   bash experiments/gpu_burst.sh pack DATA            here: write $BURST.tar.gz, below 64 MiB
#   bash experiments/gpu_burst.sh run MINUTES [--dry]  there: train the list of experiments/gpu_burst.py into $OUT
#   bash experiments/gpu_burst.sh fetch N              there: put the N-th further 60 MiB into $OUT instead
#   bash experiments/gpu_burst.sh unpack FOLDER        here: make runs in $BURST of what came back
#   bash experiments/gpu_burst.sh compare NAME DATA    here: measure a run beside its counterpart
#
# BURST is runs/burst of this clone if it is not set, and OUT is $BURST.out.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
burst=${BURST:-$root/runs/burst}
out=${OUT:-$burst.out}
work=$burst.work

python_in() { # folder with the package, and arguments
    PYTHONPATH=$1 "${PYTHON:-python3}" "$1/experiments/gpu_burst.py" "${@:2}"
}

case ${1:-} in
pack) python_in "$root" pack "${@:2}" -o "$burst.tar.gz" ;;
run)
    rm -rf "$work" && mkdir -p "$work" "$out"
    tar -xzf "$burst.tar.gz" -C "$work"
    python_in "$work" run "${@:2}" --out "$out" 2>&1 | tee "$out/log"
    ;;
fetch)
    find "$out" -type f -delete
    find "$work/left" -type f | sort | tail -n +"$((4 * ${2:?give a number from 1} - 3))" | head -n 4 |
        xargs -r cp -t "$out"
    ;;
unpack) python_in "$root" unpack "${@:2}" -o "$burst" ;;
compare) python_in "$root" compare "${@:2}" -o "$burst" ;;
*) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
esac

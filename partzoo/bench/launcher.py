"""Run a command and print what it took, as JSON: ``python launcher.py one|all COMMAND...``.

This is a process of its own, which imports little, because a process's highest memory on record includes that of the
process that started it.
"""

import json
import os
import subprocess
import sys
import time


def main(cores: str, *command: str) -> int:
    """Run a command on one core or on all, with its output suppressed, and return its exit status."""
    if cores == "one":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - began
    print(json.dumps({"cpu": used.ru_utime + used.ru_stime, "wall": wall, "mebibytes": used.ru_maxrss / 2**10}))
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

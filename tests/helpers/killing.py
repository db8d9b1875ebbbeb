"""Processes that are killed at a given operation on files."""

import os
import signal
import sys

OPERATIONS = ("os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate")


def killed_at(number, function, *arguments):
    """Call a function in a copy of this process that is killed at its n-th operation that may change files.

    Args:
        number: number of the operation, from 0.
        function: function that computes little, since threads of this process do not run in the copy.

    Returns:
        Whether the process was killed; otherwise, the function made fewer operations and has returned.
    """
    process = os.fork()
    if not process:
        try:
            _watch(number)
            function(*arguments)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), code
    return code != 0


def _watch(number):
    left = number

    def watch(event, details):
        nonlocal left
        writes = event == "open" and isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if event in OPERATIONS or writes:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(watch)

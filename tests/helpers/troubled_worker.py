"""A worker of the upload server that hangs or ends on request; a spawned process imports it from here."""

import os
import time


def trouble(pipe):
    """Stand in for the worker: some images take for ever, and some end it."""
    pipe.send(None)
    while True:
        data = pipe.recv()
        if data == b"hang":
            time.sleep(600)
        if data == b"end":
            os._exit(9)
        pipe.send((200, {"pid": os.getpid()}))

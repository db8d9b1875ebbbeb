"""A comparison of a run that is stopped half-way and resumed with an uninterrupted one."""

import os
import signal
from itertools import count

import torch

from partzoo.train.loop import fit


def check_resumed_run(make, images, options, folder):
    """Check that both runs end with the same tensors.

    Args:
        make: function that returns a new but equal task each time.
        images: trained on.
        options: of the loop, with a budget of four steps.
        folder: gets the runs ``whole`` and ``half``.
    """
    whole, half, resumed = make(), make(), make()
    fit(whole, images, options, folder / "whole", progress=False)
    steps = count(1)
    half.register_forward_pre_hook(lambda *_: os.kill(os.getpid(), signal.SIGTERM) if next(steps) == 2 else None)
    assert fit(half, images, options, folder / "half", progress=False).step == 2
    assert fit(resumed, images, options, folder / "half", resume=True, progress=False).step == 4
    state = resumed.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.state_dict().items())

"""What the engine ``ray`` asks of Ray before it is imported; no cluster is started."""

import os

import pytest

from partzoo.collections.engines import ray


@pytest.mark.parametrize(("given", "expected"), [(None, "0"), ("5", "5")])
def test_workers_of_a_new_cluster_have_the_drivers_priority_unless_the_user_says_so(monkeypatch, given, expected):
    monkeypatch.setattr(os, "environ", {} if given is None else {"RAY_worker_niceness": given})
    seen = []

    def imported(*_):
        seen.append(os.environ["RAY_worker_niceness"])
        raise KeyboardInterrupt

    monkeypatch.setattr(ray, "require", imported)
    with pytest.raises(KeyboardInterrupt):
        next(ray.run(None, [0], 1))
    assert seen == [expected]

"""Fixtures that keep all tests on this machine, and away from the caches of the person who runs them."""

from __future__ import annotations

import os
import socket
import sys
import tempfile

import hypothesis
import pytest

LOOPBACK = ("127.", "::1", "localhost")

# Set here, not in a fixture: huggingface_hub reads them when it is imported, and test modules may import it.
HOME = tempfile.TemporaryDirectory(prefix="partzoo-tests-")
for name in ("HF_HOME", "XDG_CACHE_HOME", "TORCH_HOME"):
    os.environ[name] = os.path.join(HOME.name, name.lower())
for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
    os.environ.pop(name, None)
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["MPLBACKEND"] = "agg"

# On a busy machine an example takes as long as it takes: no property test may depend on the clock.
hypothesis.settings.register_profile("partzoo", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("partzoo")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def only_loopback():
    """Let connections and look-ups reach this machine only."""
    connect, connect_ex, look_up = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def allowed(host) -> None:
        host = host.decode() if isinstance(host, bytes) else host
        if host and not host.startswith(LOOPBACK):
            raise OSError(f"tests may not reach {host}")

    def checked(call):
        def wrapped(self, address, *rest):
            if self.family in (socket.AF_INET, socket.AF_INET6):
                allowed(address[0])
            return call(self, address, *rest)

        return wrapped

    def checked_look_up(host, *rest, **named):
        allowed(host)
        return look_up(host, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", checked(connect))
        patch.setattr(socket.socket, "connect_ex", checked(connect_ex))
        patch.setattr(socket, "getaddrinfo", checked_look_up)
        yield


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")

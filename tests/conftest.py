"""No test leaves this machine, and none sees the caches of the person who runs it."""

from __future__ import annotations

import os
import socket

import pytest

LOOPBACK = ("127.", "::1", "localhost")


@pytest.fixture(autouse=True, scope="session")
def quiet_machine(tmp_path_factory):
    """Empty caches; huggingface_hub reads where they are when it is imported, which is later."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HOME", "XDG_CACHE_HOME", "TORCH_HOME"):
            patch.setenv(name, str(home / name.lower()))
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
            patch.delenv(name, raising=False)
        patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        yield


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def only_loopback():
    """Connections and look-ups go to this machine or fail."""
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
    import sys

    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


os.environ.setdefault("MPLBACKEND", "agg")

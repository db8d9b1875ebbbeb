"""The example of a server: what is uploaded can be anything, and the server goes on."""

import json
import socket
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from helpers.troubled_worker import trouble

EXAMPLES = Path(__file__).parents[1] / "examples"
CAT = (EXAMPLES / "images" / "cat.jpg").read_bytes()


@pytest.fixture(scope="module")
def example():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        import upload_server

        yield upload_server
        sys.modules.pop("upload_server")


def run(example):
    server = example.serve(0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.worker.process.kill()
    server.server_close()


@pytest.fixture(scope="module")
def address(example):
    yield from run(example)


def upload(address, data):
    try:
        with urllib.request.urlopen(address, data) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_an_image_gives_its_parts(address):
    status, found = upload(address, CAT)
    assert status == 200 and found["size"] == [300, 451] and 1 <= len(found["boxes"]) <= 6


@pytest.mark.parametrize("data", [b"junk", b"/etc/passwd", b"http://127.0.0.1/x.png", CAT[:2000], b"GIF89a"])
def test_what_is_no_image_is_refused(address, data):
    status, found = upload(address, data)
    assert status == 400 and "/etc/passwd" not in found["error"]


def test_too_many_bytes_are_refused_before_they_are_read(address, example):
    host, port = address.removeprefix("http://").split(":")
    for length in (str(example.UPLOAD_BYTES + 1), "9" * 40, "-1", "many", "0"):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(f"POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode())
            assert b" 413 " in client.recv(100)


def test_a_worker_that_hangs_or_ends_is_replaced(example, monkeypatch):
    monkeypatch.setattr(example, "work", trouble)
    monkeypatch.setattr(example, "SECONDS", 2)
    for address in run(example):
        first = upload(address, b"x")[1]["pid"]
        assert upload(address, b"hang") == (503, {"error": "The image takes over 2 s."})
        second = upload(address, b"x")[1]["pid"]
        assert upload(address, b"end")[0] == 503
        third = upload(address, b"x")[1]["pid"]
        assert len({first, second, third}) == 3

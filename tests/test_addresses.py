"""Downloads end in time, keep to what is allowed, and connect only to addresses that were checked."""

import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest

from partzoo import addresses
from partzoo.addresses import answers, download, is_public
from partzoo.errors import ImageError, TooLargeError
from partzoo.images.opening import open_image

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nimage"


@pytest.fixture
def serve():
    """Return a function that starts a server: it sends pieces of bytes, one after the other, or pauses for numbers."""
    listening, ended = [], threading.Event()

    def start(*pieces):
        server = socket.create_server(("127.0.0.1", 0))
        listening.append(server)
        seen = []

        def answer(connection):
            with connection, contextlib.suppress(OSError):
                seen.append(connection.recv(65536).decode().partition("\r\n")[0])
                for piece in pieces:
                    if isinstance(piece, bytes):
                        connection.sendall(piece)
                    elif ended.wait(piece):
                        return

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}", seen

    yield start
    ended.set()
    for server in listening:
        server.close()


def redirect(place: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()


DRIP = [each for _ in range(1000) for each in (b"X", 0.05)]
SLOW = {
    "silent": [30.0],
    "header": [b"HTTP/1.1 200 OK\r\nX: ", *DRIP],
    "100 Continue": [each for _ in range(1000) for each in (b"HTTP/1.1 100 Continue\r\n\r\n", 0.05)],
    "body": [b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", *DRIP],
    "chunked": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n", *DRIP],
    "extension": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", *DRIP],
    "trailers": [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nX\r\n0\r\n",
        *[each for _ in range(1000) for each in (b"X: Y\r\n", 0.05)],
    ],
}


@pytest.mark.parametrize("pieces", SLOW.values(), ids=SLOW)
def test_one_deadline_covers_the_whole_exchange(serve, monkeypatch, pieces):
    monkeypatch.setattr(addresses, "URL_SECONDS", 0.5)
    begun = time.monotonic()
    with pytest.raises(ImageError, match=r"takes over 0\.5 s"):
        download(serve(*pieces)[0], 10_000)
    assert time.monotonic() - begun < 10


def test_redirects_share_the_deadline(serve, monkeypatch):
    monkeypatch.setattr(addresses, "URL_SECONDS", 1.0)
    last, _ = serve(0.7, WHOLE)
    first, _ = serve(0.7, redirect(last))
    with pytest.raises(ImageError, match="takes over 1 s"):
        download(first, 100)


def test_a_look_up_without_an_answer_ends_in_time(monkeypatch):
    monkeypatch.setattr(addresses, "URL_SECONDS", 0.3)
    ended = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: ended.wait(30))
    with pytest.raises(ImageError, match=r"takes over 0\.3 s"):
        download("http://heron.example/", 100)
    ended.set()


def test_a_server_whose_name_is_not_found_in_time_does_not_answer(monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: ended.wait(30))
    begun = time.monotonic()
    assert not answers("http://heron.example/", 0.9)
    assert time.monotonic() - begun < 10
    ended.set()


def test_whole_downloads(serve):
    twice = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nimage"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nima\r\n2\r\nge\r\n0\r\n\r\n"
    unannounced = b"HTTP/1.0 200 OK\r\n\r\nimage"
    for answer in (WHOLE, twice, chunked, unannounced):
        url, seen = serve(answer)
        assert download(f"{url}/a/b.png?size=3#top", 5) == b"image"
        assert seen == ["GET /a/b.png?size=3 HTTP/1.1"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nimage", "broke off after 5 of 50 bytes"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nimage", "not valid HTTP"),
        (b"HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\n\r\nimage", "answered 206 Partial Content"),
        (b"HTTP/1.1 404 \x1b[31mRed\r\nContent-Length: 0\r\n\r\n", r"answered 404 Not Found\."),
        (b"\x1b[31mRed\r\n\r\n", "not valid HTTP"),
        (b"", "not valid HTTP|Cannot download"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\nimage", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nimage", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nimage", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nimage", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nimage\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nimage\r\n", "not valid HTTP|Cannot download"),
    ],
)
def test_what_is_no_whole_answer_is_an_error_of_one_clean_line(serve, answer, message):
    with pytest.raises(ImageError, match=message) as caught:
        download(serve(answer)[0], 100)
    assert str(caught.value).isprintable()


def test_too_many_bytes(serve):
    announced = b"HTTP/1.1 200 OK\r\nContent-Length: 5000000000\r\n\r\n"
    for answer in ([announced], [b"HTTP/1.0 200 OK\r\n\r\n", *[bytes(100_000)] * 100]):
        with pytest.raises(TooLargeError, match="more than 1,000 bytes"):
            download(serve(*answer)[0], 1000)


@pytest.mark.parametrize("place", ["https://127.0.0.1/x.png", "file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_a_redirect_keeps_its_scheme(serve, place):
    with pytest.raises(ImageError, match="redirects to another scheme"):
        download(serve(redirect(place))[0], 100)


def test_redirects_are_followed_and_end(serve):
    url, _ = serve(WHOLE)
    assert download(serve(redirect(f"{url}/Fl\u00fcgel.png"))[0], 100) == b"image"
    with pytest.raises(ImageError, match="redirects more than 5 times"):
        download(serve(redirect("/again"))[0], 100)


def test_a_web_page_is_no_image(serve):
    page = b"<!DOCTYPE html><html>Please sign in</html>"
    with pytest.raises(ImageError, match="is a web page"):
        open_image(serve(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n" + page)[0])


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("PARTZOO_URL_SCHEMES", "https", "'http' is not in PARTZOO_URL_SCHEMES"),
        ("PARTZOO_URL_SCHEMES", "none", "'http' is not in PARTZOO_URL_SCHEMES"),
        ("PARTZOO_URL_SCHEMES", "gopher", "PARTZOO_URL_SCHEMES holds 'gopher'"),
        ("PARTZOO_URL_HOSTS", "public", "127.0.0.1 is not on the public internet"),
        ("PARTZOO_URL_HOSTS", "heron.example", "'127.0.0.1' is not in PARTZOO_URL_HOSTS"),
    ],
)
def test_the_environment_forbids_addresses(serve, monkeypatch, variable, value, message):
    url, seen = serve(WHOLE)
    monkeypatch.setenv(variable, value)
    with pytest.raises(ImageError, match=message):
        open_image(url)
    assert not seen


def test_a_named_host_is_allowed_wherever_it_is(serve, monkeypatch):
    monkeypatch.setenv("PARTZOO_URL_HOSTS", "public, 127.0.0.1")
    assert download(serve(WHOLE)[0], 100) == b"image"


def test_a_redirect_to_a_private_address_is_refused(serve, monkeypatch):
    inner, seen = serve(WHOLE)
    outer, _ = serve(redirect(inner.replace("127.0.0.1", "localhost")))
    monkeypatch.setenv("PARTZOO_URL_HOSTS", "public,127.0.0.1")
    with pytest.raises(ImageError, match="localhost is not on the public internet"):
        download(outer, 100)
    assert not seen


def test_the_address_that_was_checked_is_connected_to(monkeypatch):
    """A name that changes its address after the check must not lead elsewhere: it is looked up once only."""
    looked_up, connected = [], []

    def look_up(host, port, **_):
        looked_up.append(host)
        ip = "93.184.215.14" if len(looked_up) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port))]

    def connect(self, address):
        connected.append(address)
        raise ConnectionRefusedError("refused")

    monkeypatch.setenv("PARTZOO_URL_HOSTS", "public")
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(ImageError, match="Cannot download"):
        download("http://heron.example/x.png", 100)
    assert looked_up == ["heron.example"] and connected == [("93.184.215.14", 80)]


@pytest.mark.parametrize("private", ["127.0.0.1", "169.254.169.254", "10.0.0.1"])
def test_a_name_of_a_private_address_is_refused(monkeypatch, private):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (private, 80))]
    monkeypatch.setenv("PARTZOO_URL_HOSTS", "public")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(ImageError, match=r"heron\.example is not on the public internet"):
        download("http://heron.example/x.png", 100)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("::ffff:8.8.8.8", True), ("64:ff9b::808:808", True),
        ("127.0.0.1", False), ("0.0.0.0", False), ("10.1.2.3", False), ("172.16.0.1", False), ("192.168.0.1", False),
        ("169.254.169.254", False), ("100.64.0.1", False), ("224.0.0.1", False), ("255.255.255.255", False),
        ("::1", False), ("::", False), ("fe80::1%eth0", False), ("fd00::1", False), ("ff02::1", False),
        ("::ffff:127.0.0.1", False), ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False),
        # Forms of 127.0.0.1 that are rare: compatible, translated, and behind a NAT64 of one's own; then site-local,
        # documentation and segment routing.
        ("::127.0.0.1", False), ("::ffff:0:7f00:1", False), ("64:ff9b:1::7f00:1", False), ("2001::1", False),
        ("fec0::1", False), ("3fff::1", False), ("5f00::1", False), ("2002:808:808::1", True), ("2a00:1450::1", True),
    ],
)  # fmt: skip
def test_public_addresses(address, public):
    assert is_public(address) == public


def test_a_proxy_is_used_unless_hosts_must_be_checked(serve, monkeypatch):
    proxy, seen = serve(WHOLE)
    monkeypatch.setenv("http_proxy", proxy)
    assert download("http://heron.example/x.png", 100) == b"image"
    assert seen == ["GET http://heron.example/x.png HTTP/1.1"]
    monkeypatch.setenv("PARTZOO_URL_HOSTS", "public")
    with pytest.raises(ImageError, match="Cannot download"):
        download("http://heron.example/x.png", 100)
    assert len(seen) == 1


def test_https_goes_through_a_proxy_by_a_tunnel(serve, monkeypatch):
    proxy, seen = serve(b"HTTP/1.1 200 OK\r\n\r\n", b"this is not TLS")
    monkeypatch.setenv("https_proxy", proxy)
    with pytest.raises(ImageError, match="Cannot download"):
        download("https://heron.example/x.png", 100)
    assert [line.rpartition(" ")[0] for line in seen] == ["CONNECT heron.example:443"]


def test_a_proxy_of_another_kind_is_named(monkeypatch):
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")
    with pytest.raises(ImageError, match="proxies of socks5 are not supported"):
        download("http://heron.example/x.png", 100)
    assert answers("http://heron.example/", 1)


@pytest.mark.parametrize("name", ["http://127.0.0.1:1/x.png", "HTTPS://heron.example/x.png"])
def test_a_path_is_never_an_address(name, monkeypatch):
    """Names that readers of data take from lists and annotations are joined to folders, so they are paths."""
    monkeypatch.setattr(addresses, "_exchange", lambda *_: pytest.fail("a path was taken for an address"))
    for path in (Path(name), Path("folder") / name):
        with pytest.raises(ImageError, match="No such file"):
            open_image(path)


def test_a_server_answers_or_not(serve):
    assert answers(serve(b"HTTP/1.1 404 Not Found\r\n\r\n")[0], 10)
    assert answers(serve(b"hello\r\n")[0], 10)
    begun = time.monotonic()
    assert not answers(serve(30.0)[0], 0.3)
    assert not answers("http://127.0.0.1:9", 10) and not answers("http://heron.example", 10)
    assert time.monotonic() - begun < 10

"""Send HTTP requests with one deadline for the whole exchange, and connect only to addresses that were checked.

A name is looked up once, and what is connected to is an address from that answer: a second look-up, between check and
connection, could name another one.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import ipaddress
import socket
import ssl
import string
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from partzoo import limits
from partzoo.errors import ImageError, TooLargeError, UsageError

URL_SECONDS = 60.0  # for everything together, from the look-up of the name to the last byte
REDIRECTS = 5
SHARE = 1 / 3  # share of the time that the look-up and the connection may take
CHUNK = 2**16
MOVED = (301, 302, 303, 307, 308)
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # addresses of IPv4, as seen from networks that have IPv6 only
UNICAST = ipaddress.ip_network("2000::/3")  # all public addresses of IPv6; others embed those of IPv4 or are reserved
EXAMPLES = ipaddress.ip_network("3fff::/20")  # for documentation, which older versions of Python do not know


def download(url: str, max_bytes: int) -> bytes:
    """Download an address over HTTP or HTTPS.

    Args:
        url: the address; see :func:`partzoo.limits.schemes` and :func:`partzoo.limits.hosts` for what is allowed.
        max_bytes: largest number of bytes to download.

    Raises:
        ImageError: the address is not allowed, the server cannot be reached, refuses, redirects to another scheme or is
            too slow, or the response is cut short or longer than ``max_bytes``.
    """
    deadline, target = time.monotonic() + URL_SECONDS, url
    try:
        for _ in range(REDIRECTS + 1):
            with _exchange("GET", target, deadline) as response:
                if response.status in MOVED and (place := response.headers["Location"]):
                    target = _moved(target, place)
                    continue
                if response.status != http.client.OK:
                    # The server's own phrase may hold anything, so it is not repeated.
                    phrase = http.client.responses.get(response.status, "")
                    raise ImageError(f"{url} answered {f'{response.status} {phrase}'.strip()}. Check the address.")
                return _body(response, url, max_bytes)
        raise ImageError(f"{url} redirects more than {REDIRECTS} times. Check the address.")
    except TimeoutError:
        raise ImageError(f"{url} takes over {URL_SECONDS:g} s: download it, then pass the file.") from None
    except UsageError as error:
        raise ImageError(f"{url} is not allowed: {error}") from None
    except http.client.InvalidURL:
        raise ImageError(f"{url!r} is not a valid address. Check it.") from None
    except http.client.HTTPException as error:  # its text may hold what the server sent
        raise ImageError(f"The answer of {url} is not valid HTTP ({type(error).__name__}): try again.") from None
    except (OSError, ValueError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"Cannot download {url}: {reason}. Check the address and the network.") from None


def answers(url: str, seconds: float) -> bool:
    """Return whether the server at an address, on any host, answers within some seconds, whatever the answer is.

    If that cannot be determined, because the environment sets a proxy, the result is True.
    """
    try:
        with _exchange("HEAD", url, time.monotonic() + seconds, frozenset({"any"})):
            return True
    except (ssl.SSLError, http.client.HTTPException, NotImplementedError):
        return True  # it spoke, if not in a way that is understood here
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def _exchange(
    method: str, url: str, deadline: float, hosts: frozenset[str] | None = None
) -> Iterator[http.client.HTTPResponse]:
    """Send one request and read the header of the response; redirects are not followed."""
    parts = urlsplit(url)
    if hosts is None:
        hosts = limits.hosts()
        if parts.scheme not in limits.schemes():
            raise UsageError(f"the scheme {parts.scheme!r} is not in PARTZOO_URL_SCHEMES.")
    if not parts.hostname:
        raise ValueError("it names no host")
    headers = {"User-Agent": "partzoo", "Accept": "image/*", "Connection": "close"}
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    # A proxy would look up the name itself, so hosts that must be checked are contacted directly.
    proxy = _proxy(parts) if "any" in hosts else None
    if proxy is None:
        connection = _Connection(parts.hostname, _port(parts), deadline, hosts, parts.scheme == "https")
    else:
        connection = _Connection(proxy.hostname or "", proxy.port or 80, deadline, hosts, parts.scheme == "https")
        login = _login(proxy)
        if parts.scheme == "https":
            connection.set_tunnel(parts.hostname, _port(parts), login)
        else:
            path, headers = f"http://{parts.netloc.rpartition('@')[2]}{path}", headers | login
    try:
        connection.request(method, path, headers=headers)
        yield connection.getresponse()
    finally:
        connection.end()


class _Connection(http.client.HTTPConnection):
    """A connection to a checked address, which stops waiting at a deadline."""

    def __init__(self, host: str, port: int, deadline: float, hosts: frozenset[str], encrypted: bool) -> None:
        super().__init__(host, port)
        self.deadline, self.hosts, self.encrypted = deadline, hosts, encrypted
        self.wire: socket.socket | None = None

    def connect(self) -> None:
        soon = time.monotonic() + SHARE * _left(self.deadline)
        self.wire = _connected(self.host, self.port, soon, self.hosts)
        self.sock: Any = _TimedSocket(self.wire, self.deadline)
        tunnel: str | None = getattr(self, "_tunnel_host", None)
        if tunnel:
            self._tunnel()  # type: ignore[attr-defined]
        if self.encrypted:
            self.wire.settimeout(_left(self.deadline))
            self.wire = ssl.create_default_context().wrap_socket(self.wire, server_hostname=tunnel or self.host)
            self.sock = _TimedSocket(self.wire, self.deadline)

    def end(self) -> None:
        """Close the socket itself, which outlives :meth:`close`, since the response is still read from it then."""
        self.close()
        if self.wire is not None:
            self.wire.close()


class _TimedSocket:
    """A socket for http.client that never waits past a deadline, even if data arrives in small pieces."""

    def __init__(self, wire: socket.socket, deadline: float) -> None:
        self.wire, self.deadline = wire, deadline

    def sendall(self, data: bytes) -> None:
        self.wire.settimeout(_left(self.deadline))
        self.wire.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self.wire, self.deadline))

    def close(self) -> None:
        """Leave the socket open for the response; :meth:`_Connection.end` closes it."""


class _TimedReader(io.RawIOBase):
    def __init__(self, wire: socket.socket, deadline: float) -> None:
        self.wire, self.deadline = wire, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.wire.settimeout(_left(self.deadline))
        return self.wire.recv_into(buffer)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time is up")
    return left


def _connected(host: str, port: int, deadline: float, hosts: frozenset[str]) -> socket.socket:
    """Look a host up once and connect to the first of its allowed addresses that answers."""
    named = bool(hosts & {"any", host.lower()})
    if not named and "public" not in hosts:
        raise UsageError(f"the host {host!r} is not in PARTZOO_URL_HOSTS.")
    found = [each for each in _look_up(host, port, deadline) if named or is_public(each[4][0])]
    if not found:
        raise UsageError(f"{host} is not on the public internet, and PARTZOO_URL_HOSTS allows only hosts that are.")
    failed = OSError(f"{host} has no address")
    for tried, (family, kind, protocol, _, address) in enumerate(found):
        wire = socket.socket(family, kind, protocol)
        try:
            wire.settimeout(_left(deadline) / (len(found) - tried))
            wire.connect(address)
            return wire
        except OSError as error:
            wire.close()
            failed = error
    raise failed


def _look_up(host: str, port: int, deadline: float) -> list[Any]:
    """Resolve a name in a separate thread, because only the system's resolver can end a look-up."""
    found: list[Any] = []

    def look_up() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, ValueError) as error:
            found.append(error)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(_left(deadline))
    if not found:
        raise TimeoutError(f"the name {host} is still being looked up")
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def is_public(address: str) -> bool:
    """Return whether an IP address is on the public internet: not private, loopback, link-local, reserved or multicast.

    An IPv6 address that stands for one of IPv4 is judged as that one.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        ip = inner or ip
    if isinstance(ip, ipaddress.IPv6Address) and (ip not in UNICAST or ip in EXAMPLES):
        return False
    return ip.is_global and not ip.is_multicast


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _proxy(parts: SplitResult) -> SplitResult | None:
    """Return the proxy that the environment names for an address, or None.

    Raises:
        NotImplementedError: it is not a proxy of plain HTTP.
    """
    proxies = urllib.request.getproxies()
    named = proxies.get(parts.scheme) or proxies.get("all")
    if not named or urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxy = urlsplit(named if "://" in named else f"http://{named}")
    if proxy.scheme != "http":
        raise NotImplementedError(f"proxies of {proxy.scheme} are not supported for images")
    return proxy


def _login(proxy: SplitResult) -> dict[str, str]:
    if not proxy.username:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode()}"}


def _moved(url: str, place: str) -> str:
    """Return the address that a redirect leads to, which must have the same scheme."""
    target = urljoin(url, quote(place, encoding="iso-8859-1", safe=string.punctuation))
    if urlsplit(target).scheme != urlsplit(url).scheme:
        raise ImageError(f"{url} redirects to another scheme, {target!r:.200}: pass that address if you trust it.")
    return target


def _body(response: http.client.HTTPResponse, url: str, max_bytes: int) -> bytes:
    """Read the body of a response, and compare its length with the one announced."""
    announced, stated = response.length, set(response.headers.get_all("Content-Length", ()))
    if not response.chunked and (len(stated) > 1 or (stated and announced is None)):
        raise http.client.HTTPException("its lengths are no numbers, or differ")
    data = bytearray()
    if announced is None or announced <= max_bytes:
        while chunk := response.read(CHUNK):
            data += chunk
            if len(data) > max_bytes:
                break
        else:
            if announced is not None and len(data) < announced:
                raise ImageError(
                    f"{url} broke off after {len(data):,} of {announced:,} bytes: try again, or check the network."
                )
            return bytes(data)
    raise TooLargeError(f"{url} has more than {max_bytes:,} bytes, the limit", "max_bytes")

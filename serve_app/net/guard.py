"""SSRF guard at the socket: it connects only to addresses that were checked, and enforces a deadline.

A host name is resolved once, all its addresses are checked, and the socket connects to one of those. So neither DNS
rebinding, nor a redirect, nor an odd spelling of an address gets past the check, while TLS certificates are still
verified against the name.
"""

import logging
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

import httpcore2
import httpx2
from pydantic import BaseModel, ConfigDict, Field

from serve_app.net.pace import SpeedFloor
from serve_app.net.retry import Deadline, Transient

# At DEBUG the library logs response headers, which contain the signed URLs of redirects.
logging.getLogger("httpcore2").setLevel(logging.INFO)

Address = IPv4Address | IPv6Address

# Metadata services of clouds, which serve credentials. Azure's and Oracle's addresses are not in private ranges.
_METADATA = frozenset(
    map(ip_address, ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"))
)
# `is_global` of Python 3.11 treats these as public.
_SPECIAL = (IPv4Network("192.0.0.0/24"), IPv4Network("192.88.99.0/24"))
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the IPv4 address is in the low 32 bits
_LOW_32_BITS = 0xFFFFFFFF
_HEAD_BYTES = 100 << 10  # h11 takes no longer head (`max_incomplete_event_size` of httpcore2's connections)


class Forbidden(Exception):
    """The policy does not allow it; `str` says why. A retry does not help."""


class HostForbidden(Forbidden):
    """`host` is not among the policy's hosts."""

    def __init__(self, host: str) -> None:
        super().__init__(f"its host {host!r} is not allowed")
        self.host = host


class AddressForbidden(Forbidden):
    """A host's address is private, and the policy does not allow that. The error does not contain the address."""


class NetPolicy(BaseModel):
    """Which servers may be reached, and how long an operation may take. `_s` is seconds.

    `hosts` are patterns with `*` over host names. `private_hosts` (`name` or `name:port`) may be reached although their
    addresses are private.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hosts: tuple[str, ...] = ("*",)
    private_hosts: tuple[str, ...] = ()
    allow_http: bool = False
    max_redirects: int = Field(5, ge=0)
    connect_timeout_s: float = Field(10, gt=0)
    read_timeout_s: float = Field(30, gt=0)  # without a single byte
    min_bytes_per_s: float = Field(16 << 10, ge=0)  # below it, over the window, a server is too slow
    speed_window_s: float = Field(10, gt=0)  # of waiting, from the request on
    attempts: int = Field(4, ge=1)
    backoff_s: float = Field(0.5, ge=0)  # before the first retry; doubled before each further one
    max_backoff_s: float = Field(20, ge=0)  # also if a server's Retry-After asks for more

    @property
    def trusted(self) -> httpx2.URL | None:
        """Return the server that the operator named, if any: it may be private, and use http if its address says so."""
        return None

    def allows(self, place: str) -> bool:
        """Return whether `place`, a host name or a bucket as `s3://name`, is one of `hosts`."""
        return any(fnmatchcase(place.lower(), pattern.lower()) for pattern in self.hosts)

    def allows_private(self, host: str, port: int) -> bool:
        """Return whether that server may be reached although its address is private."""
        trusted = self.trusted
        if trusted is not None and (trusted.host, port_of(trusted)) == (host, port):
            return True
        name = f"[{host}]" if ":" in host else host
        return not {name, f"{name}:{port}"}.isdisjoint(known.lower() for known in self.private_hosts)

    def allows_scheme(self, url: httpx2.URL) -> bool:
        """Return whether `url` may be fetched as it is: https, or http if the operator said so."""
        return url.scheme == "https" or (url.scheme == "http" and (self.allow_http or self.trusts(url)))

    def trusts(self, url: httpx2.URL) -> bool:
        """Return whether `url` has the origin of `trusted`."""
        trusted = self.trusted
        return trusted is not None and _origin(url) == _origin(trusted)


def port_of(url: httpx2.URL) -> int:
    """Return the TCP port of an http or https URL."""
    return url.port or {"http": 80}.get(url.scheme, 443)


def _origin(url: httpx2.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, port_of(url)


@dataclass(slots=True)
class _Heads:
    """How many more bytes may be read before the head of a response is complete; None while none is awaited.

    Interim answers (1xx) come before it, in any number, and are parsed one by one.
    """

    left: int | None = None

    def counted(self, data: bytes) -> bytes:
        """Return `data`. Raise RemoteProtocolError if more was read before, and the head is still not complete."""
        if self.left is not None:
            if self.left <= 0:
                raise httpcore2.RemoteProtocolError("no end of the head")
            self.left -= len(data)
        return data


class GuardedBackend(httpcore2.NetworkBackend):
    """Opens the sockets of one operation, for an httpcore2 connection pool."""

    def __init__(self, policy: NetPolicy, deadline: Deadline) -> None:
        self._policy = policy
        self._deadline = deadline
        self._tcp = httpcore2.SyncBackend()
        self._heads = _Heads()

    @contextmanager
    def reading_head(self) -> Iterator[None]:
        """Bound what is read while the block waits for the head of a response."""
        self._heads.left = _HEAD_BYTES
        try:
            yield
        finally:
            self._heads.left = None

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first address of `host` that answers, after all were checked.

        Raises:
            Forbidden: there is no such host, or this service may not connect to one of its addresses.
            Transient: its name could not be resolved now.
        """
        failure: Exception = httpcore2.ConnectError("the name has no address")
        for address in checked_addresses(host, port, self._policy):
            try:
                left = bounded(timeout, self._deadline)
                stream = self._tcp.connect_tcp(address, port, left, local_address, socket_options)
                return _BoundedStream(stream, self._deadline, SpeedFloor(self._policy), self._heads)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure


def checked_addresses(host: str, port: int, policy: NetPolicy) -> list[str]:
    """Return the addresses of `host`, all of which may be reached. Blocking.

    Raises:
        Forbidden: there is no such host, or this service may not connect to one of its addresses.
        Transient: its name could not be resolved now.
    """
    addresses = _resolved(host, port)
    private = policy.allows_private(host, port)
    for address in addresses:
        if is_metadata(address) or not (private or is_public(address)):
            # Without the address: answers must not reveal the hosts of a private network.
            raise AddressForbidden(f"its host {host!r} has an address that is not on the public internet")
    return addresses


class _BoundedStream(httpcore2.NetworkStream):
    """A stream whose every wait ends at the deadline and keeps a pace, so that a trickle of bytes cannot prolong it."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: Deadline, floor: SpeedFloor, heads: _Heads) -> None:
        self._stream = stream
        self._deadline = deadline
        self._floor = floor
        self._heads = heads

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = bounded(None if end is None else max(end - time.monotonic(), 0.001), self._deadline)
            with self._floor.waiting() as received:
                try:
                    return self._heads.counted(received(self._stream.read(max_bytes, min(left, self._floor.left_s))))
                except httpcore2.ReadTimeout:
                    if left <= self._floor.left_s:
                        raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, bounded(timeout, self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        left = bounded(timeout, self._deadline)
        try:
            secure = self._stream.start_tls(ssl_context, server_hostname, left)
            return _BoundedStream(secure, self._deadline, self._floor, self._heads)
        except httpcore2.ConnectError as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):  # trying again would not help
                raise Forbidden("its server's certificate is not valid for its name, or not trusted here") from None
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def bounded(timeout: float | None, deadline: Deadline) -> float:
    """Return `timeout` seconds, or what is left if that is less.

    Raises:
        httpcore2.ReadTimeout: nothing is left.
    """
    left = deadline.left()
    if left <= 0:
        raise httpcore2.ReadTimeout("the deadline has passed")
    return left if timeout is None else min(timeout, left)


def _resolved(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise Transient(f"the name of its host {host!r} could not be resolved") from None
        raise Forbidden(f"its host {host!r} is unknown; check the spelling") from None
    except UnicodeError:
        raise Forbidden("its host is no valid name; check the spelling") from None
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def is_metadata(text: str) -> bool:
    """Return whether `text` is the address of a cloud's metadata service, which is forbidden to everyone."""
    return _unwrapped(_parsed(text)) in _METADATA


def is_public(text: str) -> bool:
    """Return whether `text` is an address of the public internet.

    It is not if it is private, loopback, link-local, multicast or reserved. IPv6 addresses that carry an IPv4
    address (mapped, 6to4, NAT64) are judged by that one.
    """
    address = _unwrapped(_parsed(text))
    if address in _METADATA or not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL)
    return address in _GLOBAL_UNICAST


def _parsed(text: str) -> Address:
    return ip_address(text.partition("%")[0])  # a zone says which interface, not which address


def _unwrapped(address: Address) -> Address:
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & _LOW_32_BITS)
    return address.ipv4_mapped or address.sixtofour or address

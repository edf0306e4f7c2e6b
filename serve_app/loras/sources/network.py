"""Connections for requests that clients cause: only to addresses that were checked, and never beyond a deadline.

The check is made where the connection is: a host name is resolved once, all its addresses are judged, and the socket
goes to one of those. So nothing that a name resolves to later, no redirect and no odd spelling of an address gets by,
while certificates are still checked against the name.
"""

import logging
import socket
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore2

from serve_app.loras.sources.addresses import is_metadata, is_public
from serve_app.loras.sources.deadline import Deadline
from serve_app.loras.sources.faults import Forbidden, Transient
from serve_app.loras.sources.policy import SourcePolicy

# At DEBUG it writes out whole response headers, and with them the signed URLs that servers redirect to.
logging.getLogger("httpcore2").setLevel(logging.INFO)


class GuardedBackend(httpcore2.NetworkBackend):
    """Opens the sockets of one operation."""

    def __init__(self, policy: SourcePolicy, deadline: Deadline) -> None:
        self._policy = policy
        self._deadline = deadline
        self._tcp = httpcore2.SyncBackend()

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
            Forbidden: there is no such host, or one of its addresses is none that this service may connect to.
            Transient: its name could not be resolved now.
        """
        failure: Exception = httpcore2.ConnectError("the name has no address")
        for address in self._checked(host, port):
            try:
                left = bounded(timeout, self._deadline)
                stream = self._tcp.connect_tcp(address, port, left, local_address, socket_options)
                return _BoundedStream(stream, self._deadline)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    def _checked(self, host: str, port: int) -> list[str]:
        addresses = _resolved(host, port)
        private = self._policy.allows_private(host, port)
        for address in addresses:
            # The address is not told: names of a private network are nothing to try out from outside.
            if is_metadata(address) or not (private or is_public(address)):
                raise Forbidden(
                    f"its host {host!r} has an address that is not on the public internet; "
                    "an operator can allow it in lora_private_hosts"
                )
        return addresses


class _BoundedStream(httpcore2.NetworkStream):
    """A stream whose every wait ends at the deadline, so that a trickle of bytes cannot prolong a request."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, bounded(timeout, self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, bounded(timeout, self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        left = bounded(timeout, self._deadline)
        try:
            return _BoundedStream(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)
        except httpcore2.ConnectError as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):  # trying again would not help
                raise Forbidden("its server's certificate is not valid for its name, or not trusted here") from None
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def bounded(timeout: float | None, deadline: Deadline) -> float:
    """`timeout` seconds, or what is left if that is less.

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

"""HTTP client on the guarded transport: httpx2, with every redirect checked against the policy before it is followed.

Example:
    with Client(policy, Deadline(60), ssl_context()) as client:
        with client.stream("GET", "https://example.com/file", headers={"Range": "bytes=0-99"}) as response:
            for chunk in response.iter_raw():
                ...

`httpx2` drops Authorization if a redirect leads to another origin, and turns a POST into a GET if it must.
"""

import logging
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Self

import httpcore2
import httpx2

from serve_app.net.guard import Forbidden, GuardedBackend, HostForbidden, NetPolicy, checked_addresses, port_of
from serve_app.net.retry import Deadline, Transient
from serve_app.problems import first_problem

# At INFO the library logs the URL of every request, and a URL may contain a signature.
logging.getLogger("httpx2").setLevel(logging.WARNING)

_NO_URL = "it is no valid URL, or redirects to none; check the spelling"
# Without Accept-Encoding: identity, sizes and offsets would be those of a compressed form.
_HEADERS = {"User-Agent": "wan-lora-serve", "Accept-Encoding": "identity"}


@cache
def ssl_context() -> ssl.SSLContext:
    """Return the TLS context of this process, with the usual root certificates. Cached: reading them takes 20 ms."""
    return httpcore2.default_ssl_context()


class Client:
    """The requests of one operation. Use it in a `with` block, which closes its connections. Not thread-safe."""

    def __init__(self, policy: NetPolicy, deadline: Deadline, context: ssl.SSLContext) -> None:
        self._policy = policy
        timeout = httpx2.Timeout(policy.read_timeout_s, connect=policy.connect_timeout_s, pool=policy.connect_timeout_s)
        # trust_env=False: a proxy from the environment would resolve names itself and bypass the guard.
        transport = _GuardedTransport(policy, deadline, context)
        # No cookies: nobody here has a session, and a hostile one breaks the headers of the request that follows.
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        self._client = httpx2.Client(
            transport=transport, timeout=timeout, headers=_HEADERS, cookies=no_cookies, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    @contextmanager
    def stream(
        self, method: str, address: str, *, headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> Iterator[httpx2.Response]:
        """Request `address` and follow its redirects; the response's body is read by `iter_raw` within the block.

        Raises:
            Forbidden: the policy forbids the address, one that it redirects to, or the number of redirects.
            Transient: the server cannot be reached or does not speak HTTP; also from reading the body.
        """
        url = _parsed(address)
        self._check(url)
        request = self._client.build_request(method, url, headers=headers, content=content)
        for _ in range(self._policy.max_redirects + 1):
            response = self._client.send(request, stream=True)
            try:
                if not response.has_redirect_location:
                    yield response
                    return
                request = self._redirected(response)
            finally:
                response.close()
        raise Forbidden(f"it redirects more than {self._policy.max_redirects} times; use the address that it leads to")

    def _redirected(self, response: httpx2.Response) -> httpx2.Request:
        if response.next_request is None:
            raise Forbidden(_NO_URL)
        self._check(response.next_request.url)
        return response.next_request

    def _check(self, url: httpx2.URL) -> None:
        check_url(url, self._policy)


def check_address(address: str, policy: NetPolicy) -> None:
    """Check `address` as a request would, including a DNS lookup, but do not connect. Blocking.

    Raises:
        Forbidden: the policy forbids it.
        Transient: its host's name could not be resolved now.
    """
    url = _parsed(address)
    check_url(url, policy)
    checked_addresses(url.host, port_of(url), policy)


def check_url(url: httpx2.URL, policy: NetPolicy) -> None:
    """Raise Forbidden if the policy forbids requests for `url`, independently of the address of its host."""
    problem = first_problem(
        {
            f"it leads to {url.scheme}://, which is off here; use https://": not policy.allows_scheme(url),
            "it has no host; check the spelling": not url.host,
            "it holds a user name or password; no credentials belong in an address": bool(url.userinfo),
        }
    )
    if problem is not None:
        raise Forbidden(problem)
    if not policy.allows(url.host):
        raise HostForbidden(url.host)


class _GuardedTransport(httpx2.BaseTransport):
    """Connects httpx2 to a connection pool whose sockets the guard opens. Its errors contain nothing of the request."""

    def __init__(self, policy: NetPolicy, deadline: Deadline, context: ssl.SSLContext) -> None:
        self._backend = GuardedBackend(policy, deadline)
        self._pool = httpcore2.ConnectionPool(context, network_backend=self._backend)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        target = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        with _translated(), self._backend.reading_head():
            found = self._pool.handle_request(
                httpcore2.Request(
                    request.method,
                    target,
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        return httpx2.Response(found.status, headers=found.headers, stream=_Body(found), extensions=found.extensions)

    def close(self) -> None:
        self._pool.close()


class _Body(httpx2.SyncByteStream):
    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        with _translated():
            yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


def _parsed(address: str) -> httpx2.URL:
    try:
        return httpx2.URL(address)
    except (httpx2.InvalidURL, ValueError):
        raise Forbidden(_NO_URL) from None


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what httpcore2 raises into Transient."""
    try:
        yield
    except httpcore2.ConnectError:
        raise Transient("its server cannot be reached") from None
    except httpcore2.TimeoutException:
        raise Transient("its server took too long to answer") from None
    except (httpcore2.NetworkError, httpcore2.ProtocolError):
        raise Transient("its server broke off the connection, or does not speak HTTP") from None

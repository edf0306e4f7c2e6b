"""HTTP as sources need it: GET, with redirects that are judged one by one.

Built on httpcore2 directly: its clients would write every URL, with its signatures, into the log, follow proxies of the
environment, and resolve names themselves.
"""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpcore2
import httpx2

from serve_app.loras.sources.deadline import Deadline
from serve_app.loras.sources.faults import Forbidden, Transient
from serve_app.loras.sources.network import GuardedBackend
from serve_app.loras.sources.policy import SourcePolicy, port_of

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_AGENT = "wan-lora-serve"


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer after all redirects. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]


class Exchange:
    """The requests of one operation. Use it in a `with` block, which closes its connections."""

    def __init__(self, policy: SourcePolicy, deadline: Deadline, ssl_context: ssl.SSLContext) -> None:
        self._policy = policy
        self._pool = httpcore2.ConnectionPool(ssl_context, network_backend=GuardedBackend(policy, deadline))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.close()

    @contextmanager
    def get(self, address: str, headers: Mapping[str, str], token: str | None) -> Iterator[Reply]:
        """Request `address`. `token` is sent to the Hub and to no one else.

        Raises:
            Forbidden: the policy forbids the address, one that it redirects to, or the number of redirects.
            Transient: the server cannot be reached or does not speak HTTP; also from reading `chunks`.
        """
        url = _parsed(address)
        for _ in range(self._policy.max_redirects + 1):
            self._check(url)
            with self._sent(url, {**headers, **self._authorization(url, token)}) as reply:
                if reply.status not in _REDIRECTS or "location" not in reply.headers:
                    yield reply
                    return
                url = _parsed(reply.headers["location"], url)
        raise Forbidden(f"it redirects more than {self._policy.max_redirects} times; use the address that it leads to")

    def _check(self, url: httpx2.URL) -> None:
        problems = {
            f"it leads to {url.scheme}://, which is off here; use https://": not self._policy.allows_scheme(url),
            "it has no host; check the spelling": not url.host,
            "it holds a user name or password; no credentials belong in a LoRA's address": bool(url.userinfo),
            f"its host {url.host!r} is none of those that LoRAs may come from (lora_hosts)": not self._policy.allows(
                url.host
            ),
        }
        problem = next((problem for problem, found in problems.items() if found), None)
        if problem is not None:
            raise Forbidden(problem)

    def _authorization(self, url: httpx2.URL, token: str | None) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"} if token and self._policy.is_hub(url) else {}

    @contextmanager
    def _sent(self, url: httpx2.URL, headers: Mapping[str, str]) -> Iterator[Reply]:
        policy = self._policy
        timeouts = {
            "connect": policy.connect_timeout_s,
            "read": policy.read_timeout_s,
            "write": policy.read_timeout_s,
            "pool": policy.connect_timeout_s,
        }
        target = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=port_of(url), target=url.raw_path)
        # Without Accept-Encoding: identity, sizes and offsets would be those of a compressed form.
        own = {"Host": url.netloc.decode("ascii"), "User-Agent": _AGENT, "Accept-Encoding": "identity"}
        lines = [(name.encode(), value.encode()) for name, value in {**own, **headers}.items()]
        with ExitStack() as stack:
            with _translated():
                response = stack.enter_context(
                    self._pool.stream("GET", target, headers=lines, extensions={"timeout": timeouts})
                )
            yield Reply(response.status, _decoded(response.headers), _chunks(response))


def _parsed(address: str, base: httpx2.URL | None = None) -> httpx2.URL:
    try:
        return httpx2.URL(address) if base is None else base.join(address)
    except (httpx2.InvalidURL, ValueError):
        raise Forbidden("it is no valid URL, or redirects to none; check the spelling") from None


def _decoded(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}


def _chunks(response: httpcore2.Response) -> Iterator[bytes]:
    with _translated():
        yield from response.iter_stream()


@contextmanager
def _translated() -> Iterator[None]:
    """Turns what httpcore2 raises into faults whose text holds nothing of the request."""
    try:
        yield
    except httpcore2.ConnectError:
        raise Transient("its server cannot be reached") from None
    except httpcore2.TimeoutException:
        raise Transient("its server took too long to answer") from None
    except (httpcore2.NetworkError, httpcore2.ProtocolError):
        raise Transient("its server broke off the connection, or does not speak HTTP") from None

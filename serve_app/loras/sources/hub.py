"""Files on the Hugging Face Hub: looked up through huggingface_hub, downloaded like all others, under their guards."""

import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from urllib.parse import quote

import httpx2
from huggingface_hub import HfApi, get_hf_file_metadata
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled

from serve_app.errors import ServiceError
from serve_app.loras.sources import ranges
from serve_app.loras.sources.candidates import choose
from serve_app.loras.sources.deadline import Deadline
from serve_app.loras.sources.exchange import Exchange
from serve_app.loras.sources.faults import Forbidden, Transient, attempt
from serve_app.loras.sources.hub_names import HubFile, parse_link, parse_pinned, parse_reference
from serve_app.loras.sources.located import Located, Part, identity
from serve_app.loras.sources.policy import SourcePolicy
from serve_app.loras.sources.remote import RemoteSource
from serve_app.loras.sources.wording import not_found, refused, too_large, unavailable
from serve_app.spec import Expert

T = TypeVar("T")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NO_ACCESS = (
    "the Hub denies access to it: send hf_token of an account that may read the repository, and accept its conditions "
    "on its page if it is gated"
)


class HubSource(RemoteSource):
    """`hf://org/repository/file@revision`, and links to the Hub's pages.

    A file is pinned to the commit that its revision names now, and identified by the SHA-256 that the Hub tells for
    large files. Without a token of the client's the policy's is used, never one that lies about on this machine.
    """

    def __init__(self, policy: SourcePolicy, ssl_context: ssl.SSLContext) -> None:
        self._policy = policy
        self._ssl_context = ssl_context

    def locate(self, reference: str, name: str, *, token: str | None, expert: Expert | None) -> Located:
        """See `RemoteSource`."""
        is_hf = reference.strip().lower().startswith("hf:")
        asked = parse_reference(reference, name) if is_hf else parse_link(httpx2.URL(reference.strip()), name)
        self._check_hub()
        deadline = Deadline(self._policy.locate_timeout_s)
        if asked.file is None:
            asked = self._named(asked, name, token, expert, deadline)
        located = self._asked(lambda: self._look_up(asked, name, token, deadline), name, deadline)
        if located.size > self._policy.max_bytes:
            raise too_large(name, located.size, self._policy.max_bytes)
        return located

    @contextmanager
    def open(
        self,
        location: str,
        name: str,
        *,
        content: str,
        token: str | None,
        start: int,
        stop: int | None,
        deadline: Deadline,
    ) -> Iterator[Part]:
        """See `RemoteSource`."""
        # What lies at a commit does not change, so there is nothing to compare with `content`.
        url = self._url(parse_pinned(location))
        with (
            Exchange(self._policy, deadline, self._ssl_context) as exchange,
            ranges.opened(exchange, url, name, start=start, stop=stop, token=self._token(token)) as part,
        ):
            yield part

    def _named(
        self, asked: HubFile, name: str, token: str | None, expert: Expert | None, deadline: Deadline
    ) -> HubFile:
        """The file that is meant by its repository alone, in the commit whose listing was read."""
        api = HfApi(endpoint=self._policy.hub, token=self._token(token) or False)
        info = self._asked(
            lambda: api.model_info(asked.repository, revision=asked.revision, timeout=self._timeout(deadline)),
            name,
            deadline,
        )
        file = choose([sibling.rfilename for sibling in info.siblings or []], expert, name)
        return HubFile(asked.repository, file, info.sha)

    def _look_up(self, asked: HubFile, name: str, token: str | None, deadline: Deadline) -> Located:
        found = get_hf_file_metadata(
            self._url(asked),
            token=self._token(token) or False,
            timeout=self._timeout(deadline),
            endpoint=self._policy.hub,
        )
        if not _COMMIT.fullmatch(found.commit_hash or "") or not found.etag or found.size is None:
            raise unavailable(name, "the Hub does not tell its commit, hash and size; check hub_endpoint")
        location = asked.pinned(str(found.commit_hash))
        sha256 = found.etag if _SHA256.fullmatch(found.etag) else None
        return Located(
            reference=name,
            location=location,
            content=sha256 or identity(location, found.etag, found.size),
            sha256=sha256,
            size=found.size,
            file_name=str(asked.file).rpartition("/")[2],
        )

    def _asked(self, work: Callable[[], T], name: str, deadline: Deadline) -> T:
        return attempt(lambda: _translated(work, name), self._policy, deadline, name)

    def _url(self, file: HubFile) -> str:
        revision = quote(file.revision or "main", safe="")
        return f"{self._policy.hub}/{file.repository}/resolve/{revision}/{quote(str(file.file))}"

    def _token(self, token: str | None) -> str | None:
        own = self._policy.hub_token
        return token or (own.get_secret_value() if own is not None else None)

    def _timeout(self, deadline: Deadline) -> float:
        return max(min(self._policy.read_timeout_s, deadline.left()), 0.001)

    def _check_hub(self) -> None:
        host = httpx2.URL(self._policy.hub).host
        if not self._policy.allows(host):
            raise Forbidden(f"its host {host!r} is none of those that LoRAs may come from (lora_hosts)")


def _translated(work: Callable[[], T], name: str) -> T:
    """The result of `work`, whose errors become ours. Theirs quote requests."""
    try:
        return work()
    except ServiceError:
        raise
    except HfHubHTTPError as error:
        raise _answered(error, name) from None
    except OfflineModeIsEnabled:
        raise unavailable(name, "this service is offline (HF_HUB_OFFLINE)") from None
    except httpx2.HTTPError:
        raise Transient("the Hub cannot be reached, or takes too long") from None
    except ValueError:  # an answer that is no JSON, or a name that the library refuses
        raise refused(name, "the Hub does not answer as a Hub does; check the name and hub_endpoint") from None


def _answered(error: HfHubHTTPError, name: str) -> Exception:
    status = error.response.status_code
    if isinstance(error, GatedRepoError) or status in (401, 403):
        return refused(name, _NO_ACCESS)
    if status in (404, 410):
        return not_found(name)
    return ranges.busy(status, error.response.headers.get("retry-after", "")) or refused(
        name, f"the Hub answers {status}; check the name"
    )

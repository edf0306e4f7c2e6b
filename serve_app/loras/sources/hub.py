"""Hugging Face Hub as a LoRA source: lookup through huggingface_hub, download through the SSRF guard."""

import re
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi, get_hf_file_metadata
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled

from serve_app.errors import LoraPathRefused, ServiceError
from serve_app.loras.sides import files_for
from serve_app.loras.sources.base import Located, Part, ReadRequest, RemoteSource, SourcePolicy, identity
from serve_app.loras.sources.web import busy, byte_range
from serve_app.loras.sources.wording import attempt, not_found, refused, too_large, unavailable
from serve_app.net import Client, Deadline, HostForbidden, Transient
from serve_app.net.hub import HubFile, parse_link, parse_pinned, parse_reference
from serve_app.spec import Expert

Result = TypeVar("Result")

_SUFFIX = ".safetensors"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NO_ACCESS = (
    "the Hub denies access to it: send hf_token of an account that may read the repository, and accept its conditions "
    "on its page if it is gated"
)
_SHOWN = 20  # candidates in an error


class HubSource(RemoteSource):
    """`hf://org/repository/file@revision`, and links to the Hub's pages.

    A file is pinned to the commit that its revision names now, and identified by the SHA-256 that the Hub gives for
    large files. Without a token of the client the policy's token is used, never one from this machine's home directory.
    """

    def __init__(self, policy: SourcePolicy, context: ssl.SSLContext) -> None:
        self._policy = policy
        self._context = context

    def locate(self, reference: str, name: str, *, token: str | None, expert: Expert | None) -> Located:
        """See `RemoteSource`."""
        is_hf = reference.strip().lower().startswith("hf:")
        asked = parse_reference(reference, _SUFFIX) if is_hf else parse_link(httpx2.URL(reference.strip()), _SUFFIX)
        self._check_hub()
        deadline = Deadline(self._policy.locate_timeout_s)
        if asked.file is None:
            asked = self._named(asked, name, token, expert, deadline)
        located = self._asked(lambda: self._look_up(asked, name, token, deadline), name, deadline)
        if located.size > self._policy.max_bytes:
            raise too_large(name, located.size, self._policy.max_bytes)
        return located

    @contextmanager
    def open(self, wanted: ReadRequest) -> Iterator[Part]:
        """See `RemoteSource`."""
        # Files of a commit never change, so there is no need to compare with the wanted content.
        url = self._url(parse_pinned(wanted.location))
        token = self._token(wanted.token)
        with (
            Client(self._policy, wanted.deadline, self._context) as client,
            byte_range(client, url, wanted.name, start=wanted.start, stop=wanted.stop, token=token) as part,
        ):
            yield part

    def _named(
        self, asked: HubFile, name: str, token: str | None, expert: Expert | None, deadline: Deadline
    ) -> HubFile:
        """Choose the file of a repository that is named alone, in the commit whose listing was read."""
        api = HfApi(endpoint=self._policy.hub, token=self._token(token) or False)

        def list_files() -> tuple[list[str], str | None]:
            info = api.model_info(asked.repository, revision=asked.revision, timeout=self._timeout(deadline))
            names = [sibling.rfilename for sibling in info.siblings or []]
            if not all(isinstance(text, str) for text in (*names, info.sha or "")):
                raise TypeError("a listing of something else than names")
            return names, info.sha

        names, commit = self._asked(list_files, name, deadline)
        return HubFile(asked.repository, choose(names, expert, name), commit)

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

    def _asked(self, work: Callable[[], Result], name: str, deadline: Deadline) -> Result:
        return attempt(lambda: _translated(work, name), self._policy, deadline, name)

    def _url(self, file: HubFile) -> str:
        return file.url(self._policy.hub)

    def _token(self, token: str | None) -> str | None:
        own = self._policy.hub_token
        return token or (own.get_secret_value() if own is not None else None)

    def _timeout(self, deadline: Deadline) -> float:
        return max(min(self._policy.read_timeout_s, deadline.left()), 0.001)

    def _check_hub(self) -> None:
        host = httpx2.URL(self._policy.hub).host
        if not self._policy.allows(host):
            raise HostForbidden(host)


def _translated(work: Callable[[], Result], name: str) -> Result:
    """Return the result of `work`, and translate its errors, because the library's texts quote requests."""
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
    except (ValueError, TypeError, AttributeError, LookupError):
        # An answer that is no JSON, or JSON of another shape than the library expects; or a name that it refuses.
        raise refused(name, "the Hub does not answer as a Hub does; check the name and hub_endpoint") from None


def _answered(error: HfHubHTTPError, name: str) -> Exception:
    status = error.response.status_code
    if isinstance(error, GatedRepoError) or status in (401, 403):
        return refused(name, _NO_ACCESS)
    if status in (404, 410):
        return not_found(name)
    return busy(status, error.response.headers.get("retry-after", "")) or refused(
        name, f"the Hub answers {status}; check the name"
    )


def choose(files: Sequence[str], expert: Expert | None, name: str) -> str:
    """Return the only LoRA file among a repository's `files`, or the only one for `expert` by the side rule.

    Raises:
        LoraPathRefused: none can be told from the others; details: `candidates`, the first 20.
    """
    candidates = sorted(file for file in files if file.lower().endswith(_SUFFIX))
    for fitting in (candidates, files_for(expert, candidates) if expert else []):
        if len(fitting) == 1:
            return fitting[0]
    reason = f"no {_SUFFIX} file is in the repository"
    if candidates:
        reason = f"{len(candidates)} files are in the repository; add one of them to the path: "
        reason += ", ".join(candidates[:_SHOWN])
    raise LoraPathRefused(f"LoRA path {name!r} is refused: {reason}", {"path": name, "candidates": candidates[:_SHOWN]})

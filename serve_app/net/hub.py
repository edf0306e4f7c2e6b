"""The Hugging Face Hub: its address, and those of its files (`hf://org/repository/file@revision`, links to pages)."""

import os
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

import httpx2
from pydantic import SecretStr

from serve_app.net.guard import Forbidden, NetPolicy
from serve_app.problems import first_problem

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[\w.-]+(?:/[\w.-]+)*", re.ASCII)
_REFS = r"refs/(?:pr|convert)/[^/@]+"  # the revisions that have slashes in their names
_REFERENCE = re.compile(rf"([^/@]+/[^/@]+)(?:@({_REFS}|[^/@]+))?(?:/([^@]*))?(?:@([^@]+))?")
_LINK = re.compile(rf"([^/]+/[^/]+)/(?:blob|resolve|raw)/({_REFS}|[^/]+)/(.+)")
_FOLDER = re.compile(r"[^/]+/[^/]+(?:/tree(?:/.*)?)?")
_PINNED = re.compile(r"hf://([^/]+/[^/]+)/(.+)@([0-9a-f]{40})", re.DOTALL)


class HubPolicy(NetPolicy):
    """A policy of something that may also come from the Hub. `hub_token` serves requests without one."""

    hub_endpoint: str | None = None
    hub_token: SecretStr | None = None

    @property
    def hub(self) -> str:
        """Return the Hub's address without a slash at its end: the arg, else HF_ENDPOINT, else Hugging Face."""
        return (self.hub_endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")

    @property
    def trusted(self) -> httpx2.URL:
        """Return the address of the Hub, the only server that tokens are sent to."""
        return httpx2.URL(self.hub)


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a model repository. None: the only file, the main branch."""

    repository: str
    file: str | None
    revision: str | None

    def pinned(self, commit: str) -> str:
        """Return the address of the file as it is in `commit`."""
        return f"hf://{self.repository}/{self.file}@{commit}"

    def url(self, hub: str) -> str:
        """Return the address that serves the file; `hub` is the Hub's, without a slash at its end."""
        revision = quote(self.revision or "main", safe="")
        return f"{hub}/{self.repository}/resolve/{revision}/{quote(str(self.file))}"


def parse_pinned(location: str) -> HubFile:
    """Parse what `HubFile.pinned` wrote."""
    found = _PINNED.fullmatch(location)
    if found is None:
        raise ValueError(f"no location on the Hub: {location!r}")
    return HubFile(found[1], found[2], found[3])


def parse_reference(reference: str, suffix: str) -> HubFile:
    """Parse `hf://org/repository[/file][@revision]`; the revision may also stand behind the repository.

    `suffix` is how files of the wanted kind end, for errors.

    Raises:
        Forbidden: it is something else.
    """
    found = _REFERENCE.fullmatch(reference.strip().partition("://")[2])
    if found is None or (found[2] and found[4]):
        raise Forbidden(f"it names no file of the Hub; {_how(suffix)}")
    revision = found[2] or found[4]
    return _valid(HubFile(found[1], found[3] or None, unquote(revision) if revision else None), suffix)


def parse_link(url: httpx2.URL, suffix: str) -> HubFile:
    """Parse the address of a file's page on the Hub (`blob`) or of the file itself (`resolve`).

    Raises:
        Forbidden: it is another page; the reason says what to write instead.
    """
    path = url.raw_path.decode("ascii").partition("?")[0].strip("/")
    found = _LINK.fullmatch(path)
    if found is not None:
        return _valid(HubFile(found[1], unquote(found[3]), unquote(found[2])), suffix)
    folder = _FOLDER.fullmatch(path)
    if folder is not None:
        raise Forbidden(f"it is a page that lists files; open the file's own page, or {_how(suffix)}")
    raise Forbidden(f"it is no link to a file of a model repository; {_how(suffix)}")


def _how(suffix: str) -> str:
    return f"write hf://org/repository/file{suffix}@revision"


def _valid(file: HubFile, suffix: str) -> HubFile:
    parts = (file.file or "x").split("/")
    problem = first_problem(
        {
            "its repository's name is not possible": not _REPOSITORY.fullmatch(file.repository),
            "its revision's name is not possible": file.revision is not None and not _REVISION.fullmatch(file.revision),
            "its file's name is not possible": not {"", ".", ".."}.isdisjoint(parts),
        }
    )
    if problem is not None:
        raise Forbidden(f"{problem}; {_how(suffix)}")
    return file

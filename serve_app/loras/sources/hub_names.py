"""How files of the Hugging Face Hub are written: as `hf://`, or as links to its pages."""

import re
from dataclasses import dataclass
from urllib.parse import unquote

import httpx2

from serve_app.loras.sources.wording import refused

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[\w.-]+(?:/[\w.-]+)*", re.ASCII)
_REFS = r"refs/(?:pr|convert)/[^/@]+"  # the revisions that have slashes in their names
_REFERENCE = re.compile(rf"([^/@]+/[^/@]+)(?:@({_REFS}|[^/@]+))?(?:/([^@]*))?(?:@([^@]+))?")
_LINK = re.compile(rf"([^/]+/[^/]+)/(?:blob|resolve|raw)/({_REFS}|[^/]+)/(.+)")
_FOLDER = re.compile(r"[^/]+/[^/]+(?:/tree(?:/.*)?)?")
_PINNED = re.compile(r"hf://([^/]+/[^/]+)/(.+)@([0-9a-f]{40})", re.DOTALL)
_HOW = "write hf://org/repository/file.safetensors@revision"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a model repository. None: the only file, the main branch."""

    repository: str
    file: str | None
    revision: str | None

    def pinned(self, commit: str) -> str:
        """The address of the file as it is in `commit`."""
        return f"hf://{self.repository}/{self.file}@{commit}"


def parse_pinned(location: str) -> HubFile:
    """Reads what `HubFile.pinned` wrote."""
    found = _PINNED.fullmatch(location)
    if found is None:
        raise ValueError(f"no location on the Hub: {location!r}")
    return HubFile(found[1], found[2], found[3])


def parse_reference(reference: str, name: str) -> HubFile:
    """Reads `hf://org/repository[/file][@revision]`; the revision may also stand behind the repository.

    Raises:
        LoraPathRefused: it is something else.
    """
    found = _REFERENCE.fullmatch(reference.strip().partition("://")[2])
    if found is None or (found[2] and found[4]):
        raise refused(name, f"it names no file of the Hub; {_HOW}")
    revision = found[2] or found[4]
    return _checked(HubFile(found[1], found[3] or None, unquote(revision) if revision else None), name)


def parse_link(url: httpx2.URL, name: str) -> HubFile:
    """Reads the address of a file's page on the Hub (`blob`) or of the file itself (`resolve`).

    Raises:
        LoraPathRefused: it is another page; the reason says what to write instead.
    """
    path = url.raw_path.decode("ascii").partition("?")[0].strip("/")
    found = _LINK.fullmatch(path)
    if found is not None:
        return _checked(HubFile(found[1], unquote(found[3]), unquote(found[2])), name)
    folder = _FOLDER.fullmatch(path)
    if folder is not None:
        raise refused(name, f"it is a page that lists files; open the file's own page, or {_HOW}")
    raise refused(name, f"it is no link to a file of a model repository; {_HOW}")


def _checked(file: HubFile, name: str) -> HubFile:
    parts = (file.file or "x").split("/")
    problems = {
        "its repository's name is not possible": not _REPOSITORY.fullmatch(file.repository),
        "its revision's name is not possible": file.revision is not None and not _REVISION.fullmatch(file.revision),
        "its file's name is not possible": not {"", ".", ".."}.isdisjoint(parts),
    }
    problem = next((problem for problem, found in problems.items() if found), None)
    if problem is not None:
        raise refused(name, f"{problem}; {_HOW}")
    return file

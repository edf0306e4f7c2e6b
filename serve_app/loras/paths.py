"""Paths of LoRAs inside `lora_root`: path traversal guard with LoRA errors, and folders of tenants.

What lies in `lora_root/tenants/<tenant>/` belongs to that tenant; see `serve_app.tenant_folders`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from serve_app.errors import LoraNotFound, LoraPathRefused, RequestError
from serve_app.loras.tree import DEEPEST
from serve_app.paths import PathForbidden, PathMissing, Root
from serve_app.paths import unreadable as fault_of
from serve_app.problems import first_problem
from serve_app.tenant_folders import Found, TenantFolders

ENDING = ".safetensors"
_LONGEST_NAME = 255  # bytes, of file systems


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the paths of one sender are looked up: first in its own folder, if it has one, then in the root."""

    root: Path
    owner: str | None = None  # None: nothing belongs to anyone, and all of the root is seen

    @property
    def own(self) -> PurePosixPath | None:
        """Return the path, in the root, of the folder that is the owner's alone."""
        return self._folders.own

    @property
    def first(self) -> Path:
        """Return where the sender's paths are looked for first, and where its new files go."""
        return self._folders.first.directory

    def find(self, reference: str) -> Found:
        """Find the regular file that `reference` names; see `serve_app.tenant_folders`.

        Raises:
            LoraPathRefused: it leads out, or is not a relative path to a regular file.
            LoraNotFound: nothing is there, or it is another tenant's. No error tells where the root lies.
        """
        try:
            return self._folders.find(reference)
        except (PathForbidden, PathMissing) as fault:
            raise _worded(reference, fault) from fault

    def new(self, reference: str) -> Path:
        """Return the path of a new file with that name: in the owner's folder, if any, else in the root. Blocking.

        Raises:
            LoraPathRefused: no request could name it, or it would be outside of the folder.
        """
        path = PurePosixPath(reference)
        problem = first_problem(
            {
                f"it does not end in {ENDING}": not path.name.lower().endswith(ENDING),
                "a name in it begins with a dot": any(part.startswith(".") for part in path.parts),
                f"a name in it has more than {_LONGEST_NAME} bytes": any(
                    len(part.encode(errors="replace")) > _LONGEST_NAME for part in path.parts
                ),
                "it has characters that cannot be seen": not reference.isprintable(),
                f"it lies in more than {DEEPEST - 1} folders": len(path.parts) > DEEPEST,
            }
        )
        try:
            if problem is not None:
                raise PathForbidden(f"{problem}; choose another name")
            return self._folders.first.new(reference)
        except PathForbidden as fault:
            raise _worded(reference, fault) from fault

    @property
    def _folders(self) -> TenantFolders:
        example = "my_lora_high_noise.safetensors"
        return TenantFolders(Root(self.root, "lora_root", "the .safetensors file", example), self.owner)


def resolve(reference: str, root: Path) -> Path:
    """Return the regular file under `root` that `reference` names, whosever it is; see `Folders.find`."""
    return Folders(root).find(reference).path


def unreadable(reference: str, error: OSError) -> RequestError:
    """Return the error for a file that cannot be opened; raise `error` again if it is not about the file."""
    return _worded(reference, fault_of(error))


def _worded(reference: str, fault: PathForbidden | PathMissing) -> RequestError:
    if isinstance(fault, PathMissing):
        return not_found([reference], {} if fault.near is None else {reference: fault.near})
    sendable = reference.encode(errors="backslashreplace").decode()  # an answer with a lone surrogate has no UTF-8
    return LoraPathRefused(f"LoRA path {reference!r} is refused: {fault}", {"path": sendable})


def not_found(references: Sequence[str], near: Mapping[str, str]) -> LoraNotFound:
    """Return the error for files that are not there; `near` has, by reference, the path of one that looks the same."""
    hint = "".join(f"; did you mean {path!r}?" for path in near.values())
    details: dict[str, Any] = {"missing_files": list(references)}
    if near:
        details["did_you_mean"] = dict(near)
    return LoraNotFound(f"LoRA file(s) not found: {list(references)}{hint}", details)

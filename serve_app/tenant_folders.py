"""Folders of tenants under a root (multi-tenant isolation): whose files a path may name, and where it looks first.

Example:
    folders = TenantFolders(Root(directory, ...), owner="team-a")
    folders.find("folder/file").path   # in <directory>/tenants/team-a/, or else in <directory>, which all share

What lies in `tenants/<tenant>/` belongs to that tenant. For every other one nothing is there, also through a link.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from serve_app.paths import PathMissing, Root

_TENANTS = "tenants"  # the folder of all tenants' folders


@dataclass(frozen=True, slots=True)
class TenantFolders:
    """Where one sender's paths are looked for, in order: its own folder, if it has one to itself, and the root."""

    root: Root
    owner: str | None = None  # None: nothing belongs to anyone, and all of the root is seen

    @property
    def own(self) -> PurePosixPath | None:
        """Return the path, in the root, of the folder that is the owner's alone."""
        return None if self.owner is None else PurePosixPath(_TENANTS, self.owner)

    @property
    def first(self) -> Root:
        """Return where the sender's paths are looked for first, and where its new files go."""
        return self.root if self.own is None else replace(self.root, directory=self.root.directory / self.own)

    def find(self, reference: str) -> "Found":
        """Find the regular file that `reference` names; see `serve_app.paths.Root.resolve`.

        Raises:
            PathForbidden: it leads out, or is not a relative path to a regular file.
            PathMissing: nothing is there, or it is another tenant's.
        """
        if self._is_foreign(PurePosixPath(reference)):  # before the disk is asked, so that even the time tells nothing
            raise PathMissing
        try:
            found = self._first_found(reference)
        except PathMissing:
            near = self.root.near(reference)
            raise PathMissing(None if near is None or self._is_foreign(PurePosixPath(near)) else near) from None
        if self.own is not None and self._is_foreign(
            PurePosixPath(found.path.relative_to(self.root.directory.resolve()))
        ):
            raise PathMissing  # reached by a link
        return found

    def _first_found(self, reference: str) -> "Found":
        if self.own is not None:
            with suppress(PathMissing):
                return Found(self.first.directory, self.first.resolve(reference))
        return Found(self.root.directory, self.root.resolve(reference))

    def _is_foreign(self, path: PurePosixPath) -> bool:
        """Return whether a path in the root is another tenant's; file systems may ignore the case of letters."""
        if self.own is None or path.is_absolute() or not path.parts or path.parts[0].casefold() != _TENANTS:
            return False
        return ".." not in path.parts and not path.is_relative_to(self.own)


@dataclass(frozen=True, slots=True)
class Found:
    """A file that a path names."""

    folder: Path  # in which the path was looked up: the owner's folder, or the root
    path: Path  # of the file: absolute, without symlinks

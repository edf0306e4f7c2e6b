"""Folders of tenants under a root (multi-tenant isolation): whose files a path may name, and where it looks first.

Example:
    folders = TenantFolders(Root(directory, ...), owner="team-a")
    folders.resolve("folder/file")   # in <directory>/tenants/team-a/, or else in <directory>, which all share

What lies in `tenants/<tenant>/` belongs to that tenant. For every other one nothing is there, also through a link.
"""

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

    def holding(self, reference: str) -> Root:
        """Return the folder in which `reference` is: the owner's if it is there, else the root.

        Raises:
            PathForbidden: it cannot be a path in any of them.
        """
        if self.own is None:
            return self.root
        try:
            self.first.resolve(reference)
        except PathMissing:
            return self.root
        return self.first

    def resolve(self, reference: str) -> Path:
        """Return the regular file that `reference` names; see `serve_app.paths.Root.resolve`.

        Raises:
            PathForbidden: it leads out, or is not a relative path to a regular file.
            PathMissing: nothing is there, or it is another tenant's.
        """
        if self._is_foreign(PurePosixPath(reference)):  # before the disk is asked, so that even the time tells nothing
            raise PathMissing
        try:
            found = self.holding(reference).resolve(reference)
        except PathMissing as missing:
            if missing.near is not None and self._is_foreign(PurePosixPath(missing.near)):
                raise PathMissing from None
            raise
        if self._is_foreign(PurePosixPath(found.relative_to(self.root.directory.resolve()))):  # reached by a link
            raise PathMissing
        return found

    def _is_foreign(self, path: PurePosixPath) -> bool:
        """Return whether a path in the root is another tenant's; file systems may ignore the case of letters."""
        if self.own is None or path.is_absolute() or not path.parts or path.parts[0].casefold() != _TENANTS:
            return False
        return ".." not in path.parts and not path.is_relative_to(self.own)

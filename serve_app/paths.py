"""Path traversal guard: resolve a client's path to a file under a root; callers translate its errors."""

import errno
import os
import stat
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from serve_app.files import NotRegular
from serve_app.problems import first_problem


class PathForbidden(Exception):
    """The path leads out of its root, or not to a regular file; `str` says why and what to do."""


class PathMissing(Exception):
    """Nothing is at that path. `near` is one that is there and looks the same, but for case, spaces and dashes."""

    def __init__(self, near: str | None = None) -> None:
        super().__init__(near)
        self.near = near


_MOST_COMPARED = 2000  # names of a folder


@dataclass(frozen=True, slots=True)
class Root:
    """A directory in which clients may name files. The other fields are for errors, which never contain its path."""

    directory: Path
    arg: str  # which sets the directory
    wanted: str  # what to name, as in "a .safetensors file"
    example: str  # a path of one

    def resolve(self, reference: str) -> Path:
        """Return the regular file that `reference` names: absolute, without symlinks.

        `reference` is POSIX, relative to the root; `~` is an ordinary character. Symlinks may point anywhere inside. A
        name that is not there is looked for in the other Unicode normal forms: macOS writes NFD where others write NFC.

        Raises:
            PathForbidden: it leads out of the root, or is not a relative path to a regular file.
            PathMissing: nothing is there.
        """
        self._check_spelling(reference)
        inside = self.directory.resolve()
        try:
            file = _named(inside, reference).resolve()
            if not file.is_relative_to(inside):
                raise PathForbidden(f"it leaves {self.arg} through a symlink; copy the file into {self.arg}")
            mode = file.stat().st_mode
        except RuntimeError as error:  # how Python 3.11 reports a loop of symlinks
            raise PathForbidden("its symlinks form a loop; link it to the file itself") from error
        except OSError as error:
            raise unreadable(error) from error
        self._check_kind(mode)
        return file

    def near(self, reference: str) -> str | None:
        """Return the path that a person would take for `reference`, which is missing; None if none, or several."""
        return _near(self.directory.resolve(), reference)

    def new(self, reference: str) -> Path:
        """Return where a file of that name would be, absolute; it and its folders may be missing.

        Raises:
            PathForbidden: it leads out of the root, by its spelling or through a symlink.
        """
        self._check_spelling(reference)
        inside = self.directory.resolve()
        try:
            place = (inside / reference).resolve()
        except (RuntimeError, OSError) as error:
            raise PathForbidden("a folder in it cannot be entered; choose another one") from error
        if not place.is_relative_to(inside) or place == inside:
            raise PathForbidden(f"it leaves {self.arg} through a symlink; choose another name")
        if place.is_dir() or any(folder.is_file() for folder in place.parents):
            raise PathForbidden("it is a folder, or lies in a file; choose another name")
        return place

    def _check_spelling(self, reference: str) -> None:
        path = PurePosixPath(reference)
        relative = f"write it relative to the service's {self.arg}, as in '{self.example}'"
        problem = first_problem(
            {
                f"it is empty; {relative}": not reference.strip(),
                "it contains a NUL character; remove it": "\0" in reference,
                "it is not valid Unicode; remove the unpaired surrogate": not _is_unicode(reference),
                f"it contains a backslash; separate folders with '/' and {relative}": "\\" in reference,
                f"it is absolute; {relative}": path.is_absolute(),
                f"it contains '..'; {relative}": ".." in path.parts,
            }
        )
        if problem is not None:
            raise PathForbidden(problem)

    def _check_kind(self, mode: int) -> None:
        if stat.S_ISDIR(mode):
            raise PathForbidden(f"it is a directory; name {self.wanted} in it")
        if not stat.S_ISREG(mode):  # opening a FIFO would wait forever
            raise PathForbidden(f"it is not a regular file; name {self.wanted}")


def unreadable(error: OSError) -> PathForbidden | PathMissing:
    """Return the fault of a file that cannot be opened; raise `error` again if it is not about the file."""
    if isinstance(error, PermissionError):
        return PathForbidden("this service has no permission to read it; change the file's mode or owner")
    if isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno == errno.ENAMETOOLONG:
        return PathMissing()
    if isinstance(error, NotRegular):  # it was swapped after `resolve`
        return PathForbidden(f"{error.strerror}; name a regular file")
    raise error


def _named(inside: Path, reference: str) -> Path:
    """Return the path that is written like `reference`, else the only one that differs in its Unicode form alone.

    Raises:
        PathForbidden: several differ in that alone.
        OSError: a folder cannot be read.
    """
    if reference.isascii() or os.path.lexists(inside / reference):
        return inside / reference
    found = inside
    for part in PurePosixPath(reference).parts:
        if os.path.lexists(found / part):
            found /= part
            continue
        same = [name for name in _names_in(found, inside) if _composed(name) == _composed(part)]
        if len(same) > 1:
            raise PathForbidden(f"{len(same)} names there look alike, in other Unicode forms: {same}; rename one")
        found /= same[0] if same else part
    return found


def _near(inside: Path, reference: str) -> str | None:
    """Return the path under `inside` that a person would take for `reference`; None if there is none, or several."""
    found: list[str] = []
    for part in PurePosixPath(reference).parts:
        names = _names_in(inside.joinpath(*found), inside)[:_MOST_COMPARED]
        same = [part] if part in names else [name for name in names if _folded(name) == _folded(part)]
        if len(same) != 1:
            return None
        found += same
    return "/".join(found)


def _folded(name: str) -> str:
    """Return a name without what the eye hardly sees: compatibility forms, case, kinds of dashes and spaces."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    kept = "".join("-" if unicodedata.category(c) == "Pd" else c for c in plain if unicodedata.category(c) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", kept).split()).replace(" .", ".")


def _names_in(folder: Path, inside: Path) -> list[str]:
    is_readable = folder.is_dir() and folder.resolve().is_relative_to(inside)
    return sorted(path.name for path in folder.iterdir()) if is_readable else []


def _composed(name: str) -> str:
    """Return the normal form C, in which names are compared; form KC would also take different letters for one."""
    return unicodedata.normalize("NFC", name)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

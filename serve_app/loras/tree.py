"""Recursive listing of a folder whose files clients may name: no hidden files, and no link that leads outside.

Example:
    for entry in files_under(root, ".safetensors"):  # `root` is resolved: no part of it is a link
        entry.path, entry.place
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DEEPEST = 8  # folders


@dataclass(frozen=True, slots=True)
class Entry:
    """One regular file: its path relative to the root, as requests name it, and its absolute path."""

    path: str
    place: Path


def files_under(root: Path, ending: str) -> Iterator[Entry]:
    """Yield the files whose names end with `ending` (case is ignored). No part of `root` is a link. Blocking.

    Left out are names that begin with a dot, names that are no Unicode, links that lead out of the root, and folders
    that cannot be read.

    Raises:
        OSError: the root itself cannot be read.
    """
    folders = [Entry("", root)]
    entered: set[tuple[int, int]] = set()
    while folders:
        folder = folders.pop()
        try:
            status, entries = folder.place.stat(), sorted(os.scandir(folder.place), key=lambda entry: entry.name)
        except OSError:
            if folder.place == root:
                raise
            continue
        if (status.st_dev, status.st_ino) in entered:  # a link to a folder above
            continue
        entered.add((status.st_dev, status.st_ino))
        named = [
            (found, Entry(f"{folder.path}/{found.name}".lstrip("/"), Path(found.path)))
            for found in entries
            if _may_be_named(found, root)
        ]
        folders.extend(entry for found, entry in named if found.is_dir() and entry.path.count("/") < DEEPEST)
        yield from (entry for found, entry in named if found.is_file() and found.name.lower().endswith(ending))


def _may_be_named(entry: "os.DirEntry[str]", root: Path) -> bool:
    if entry.name.startswith(".") or "\\" in entry.name or not _is_unicode(entry.name):
        return False
    return not entry.is_symlink() or Path(entry.path).resolve().is_relative_to(root)


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True

"""Path traversal guard: which file under `lora_root` a client means by a path. Remote addresses: `loras.sources`."""

import errno
import os
import stat
import unicodedata
from pathlib import Path, PurePosixPath

from serve_app.errors import LoraNotFound, LoraPathRefused, RequestError, first_problem

_RELATIVE = "write it relative to the service's lora_root, as in 'my_lora_high_noise.safetensors'"


def resolve(reference: str, root: Path) -> Path:
    """Return the regular file under `root` that `reference` names: absolute, without symlinks.

    `reference` is POSIX, relative to `root`; `~` is an ordinary character. Symlinks may point anywhere inside root. A
    name that is not there is looked for in the other Unicode normal forms: macOS writes NFD where others write NFC.

    Raises:
        LoraPathRefused: it leads out of root, or is not a relative path to a regular file.
        LoraNotFound: nothing is there. No error tells where root lies.
    """
    _check_spelling(reference)
    inside = root.resolve()
    try:
        file = _named(inside, reference).resolve()
        if not file.is_relative_to(inside):
            raise _refused(reference, "it leaves lora_root through a symlink; copy the file into lora_root")
        mode = file.stat().st_mode
    except RuntimeError as error:  # how Python 3.11 reports a loop of symlinks
        raise _refused(reference, "its symlinks form a loop; link it to the file itself") from error
    except OSError as error:
        raise unreadable(reference, error) from error
    _check_kind(reference, mode)
    return file


def _named(inside: Path, reference: str) -> Path:
    """Return the path that is written like `reference`, else the only one that differs in its Unicode form alone.

    Raises:
        LoraPathRefused: several differ in that alone.
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
            raise _refused(reference, f"{len(same)} names there look alike, in other Unicode forms: {same}; rename one")
        found /= same[0] if same else part
    return found


def _names_in(folder: Path, inside: Path) -> list[str]:
    is_readable = folder.is_dir() and folder.resolve().is_relative_to(inside)
    return sorted(path.name for path in folder.iterdir()) if is_readable else []


def _composed(name: str) -> str:
    """Return the normal form C, in which names are compared; form KC would also take different letters for one."""
    return unicodedata.normalize("NFC", name)


def unreadable(reference: str, error: OSError) -> RequestError:
    """Return the error for a file that cannot be opened; raise `error` again where it is not about the file."""
    if isinstance(error, PermissionError):
        return _refused(reference, "this service has no permission to read it; change the file's mode or owner")
    if isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno == errno.ENAMETOOLONG:
        return LoraNotFound(f"LoRA file(s) not found: {[reference]}", {"missing_files": [reference]})
    raise error


def _check_spelling(reference: str) -> None:
    problem = _spelling_problem(reference)
    if problem is not None:
        raise _refused(reference, problem)


def _spelling_problem(reference: str) -> str | None:
    path = PurePosixPath(reference)
    return first_problem(
        {
            f"it is empty; {_RELATIVE}": not reference.strip(),
            "it contains a NUL character; remove it": "\0" in reference,
            "it is not valid Unicode; remove the unpaired surrogate": not _is_unicode(reference),
            f"it contains a backslash; separate folders with '/' and {_RELATIVE}": "\\" in reference,
            f"it is absolute; {_RELATIVE}": path.is_absolute(),
            f"it contains '..'; {_RELATIVE}": ".." in path.parts,
        }
    )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_kind(reference: str, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise _refused(reference, "it is a directory; name the .safetensors file in it")
    if not stat.S_ISREG(mode):  # opening a FIFO would wait for ever
        raise _refused(reference, "it is not a regular file; name a .safetensors file")


def _refused(reference: str, reason: str) -> LoraPathRefused:
    sendable = reference.encode(errors="backslashreplace").decode()  # an answer with a lone surrogate has no UTF-8
    return LoraPathRefused(f"LoRA path {reference!r} is refused: {reason}", {"path": sendable})

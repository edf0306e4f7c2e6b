"""Validated values of args: hosts, origins, addresses, paths, the hashed admin key.

Each is a type that a field of the args has, so that what a value may be stands in one place:

    class Settings(BaseModel):
        base_url: PublicAddress = ""
"""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ValidationError

HASHED = "sha256:"

_HOST = re.compile(r"[\w.*-]+(:[0-9]+)?|\[[0-9a-fA-F:*]+\](:[0-9]+)?|[0-9a-fA-F:]+")
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]+)?|https?://\[[0-9a-f:]+\](:[0-9]+)?")
_SHORTEST_KEY = 32  # characters: what people make up is shorter


def wrong_values(error: ValidationError, whole: str = "args") -> str:
    """Return what is wrong with which key, in one line; without the values, which may be secret.

    `whole` stands for the key where something is wrong with several together.
    """
    return "; ".join(f"{_key(e['loc']) or whole}: {e['msg']}" for e in error.errors())


def _key(location: tuple[int | str, ...]) -> str:
    """Return a key as a person writes it: "models[1].max_generators"."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


def _hashed(key: Any) -> Any:
    """Return the hash of the admin key, so that the key itself goes no further; a hash as it is."""
    if not isinstance(key, str) or re.fullmatch(rf"{HASHED}[0-9a-f]{{64}}", key):
        return key
    if len(key) < _SHORTEST_KEY:
        raise ValueError(f"must have at least {_SHORTEST_KEY} characters; `openssl rand -base64 32` makes one")
    return HASHED + hashlib.sha256(key.encode()).hexdigest()


def _output_url(url: str) -> str:
    """Return a plain path, as in OUTPUT_BASE_PATH, as a `file://` URL; a URL as it is."""
    return url if "://" in url else Path(url).absolute().as_uri()


def _database_url(url: str) -> str:
    """Return the URL of a database of a known kind, that of a SQLite file with an absolute path."""
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        # SQLAlchemy's form: three slashes and a path relative to the working directory, or four and absolute.
        return f"sqlite:///{Path(rest.removeprefix('/')).absolute()}"
    if scheme in ("postgresql", "postgres"):
        _check_port(url)
        return f"postgresql://{rest}"
    raise ValueError("must start with sqlite:/// (embedded) or postgresql:// (clusters)")


def _check_port(url: str) -> None:
    """Raise ValueError, without a part of the URL, if the port of a database URL is no number."""
    try:
        urlsplit(url).port  # noqa: B018 - reading it checks it
    except ValueError:
        raise ValueError(
            "must name its port as a number; in a password, write / : @ # ? % as %2F %3A %40 %23 %3F %25"
        ) from None


def _as_yaml_reads_it(mode: Any) -> Any:
    """Return what was written where YAML 1.1 has read `on` or `off` as a truth value."""
    return {True: "on", False: "off"}.get(mode, mode) if isinstance(mode, bool) else mode


def _are_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    if any(origin != "*" and not _ORIGIN.fullmatch(origin) for origin in origins):
        raise ValueError("each must be * or an origin such as https://app.example.com, without a path")
    return origins


def _are_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what could never match, as an address with its scheme."""
    if any(not _HOST.fullmatch(host) for host in hosts):
        raise ValueError("each must be a host or host:port, without scheme and path; * stands for any text")
    return hosts


def _hub_address(url: str) -> str:
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("must be the http(s) address of a Hugging Face Hub")
    _refuse_credentials(url)
    return url


def _public_address(url: str) -> str:
    if url and urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("must be the public http(s) address of this service, or empty for rooted links")
    _refuse_credentials(url)
    return url.rstrip("/")


def _refuse_credentials(url: str) -> None:
    if "@" in urlsplit(url).netloc:
        raise ValueError("must hold no user and no password")


AdminKey = Annotated[str, BeforeValidator(_hashed)]
AbsolutePath = Annotated[Path, AfterValidator(Path.absolute)]  # relative ones count from the working directory
OutputUrl = Annotated[str, AfterValidator(_output_url)]
DatabaseUrl = Annotated[str, AfterValidator(_database_url)]
Switch = BeforeValidator(_as_yaml_reads_it)  # for an enum with the words `on` and `off`
Origins = Annotated[tuple[str, ...], AfterValidator(_are_origins)]
Hosts = Annotated[tuple[str, ...], AfterValidator(_are_hosts)]  # host or host:port; patterns with *
HubAddress = Annotated[str, AfterValidator(_hub_address)]
PublicAddress = Annotated[str, AfterValidator(_public_address)]

"""Preflight checks: every problem of a start that can be found before Ray is started.

Example:
    config = read_config(Path("serve_config.yaml"))
    check(config)  # raises ConfigurationInvalid
"""

import asyncio
import errno
import socket
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from serve_app.api.videos.aliases import check_aliases
from serve_app.errors import ConfigurationInvalid, OutputNotWritten
from serve_app.jobs.schema import migrate
from serve_app.launch.exposure import check_exposure
from serve_app.models.checkpoints.folder import check_base, check_experts, check_text_width
from serve_app.models.served import Served, served_models
from serve_app.outputs import OutputStore
from serve_app.settings import Settings, wrong_values

IMPORT_PATH = "serve_app:build"


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """What a Serve config file says about this service."""

    path: Path
    host: str
    port: int
    applications: tuple[str, ...]  # names
    settings: tuple[Settings, ...]  # of the applications, in their order

    @property
    def url(self) -> str:
        """Return the address that a client on this machine uses."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 - compared, not bound
        return f"http://{host}:{self.port}"


def read_config(path: Path) -> ServeConfig:
    """Parse a Serve config file (YAML or JSON) and the args of this service's applications in it.

    Raises:
        ConfigurationInvalid: the file cannot be read, is no Serve config, names no application of this service, or an
            arg is unknown or has a wrong value.
    """
    try:
        schema = ServeDeploySchema.model_validate(read_document(path))
    except ValidationError as error:
        raise ConfigurationInvalid(f"{path} is no Serve config: {wrong_values(error)}") from None
    own = [app for app in schema.applications if app.import_path == IMPORT_PATH]
    if not own:
        raise ConfigurationInvalid(f"{path} has no application with import_path: {IMPORT_PATH}")
    return ServeConfig(
        path=path,
        host=schema.http_options.host,
        port=schema.http_options.port,
        applications=tuple(app.name for app in own),
        settings=tuple(Settings.from_args(app.args) for app in own),
    )


def check(config: ServeConfig) -> None:
    """Check that the service could start here.

    Each model has a card, the database answers and has the newest schema, a service that others reach has keys, outputs
    can be written, the LoRA folders can be made, checkpoints that lie on this machine's disks are whole, and the port
    is free. The port comes last: nothing is bound before it is known that others may come in.

    Raises:
        ConfigurationInvalid: the first thing that is wrong, with what to do.
    """
    for settings in config.settings:
        models = served_models(settings)
        _check_database(settings.database_url)
        check_exposure(config.host, settings)
        _check_folder("lora_root", settings.lora_root)
        _check_folder("lora_cache_dir", settings.lora_cache_dir)
        if settings.image_root is not None:
            _check_folder("image_root", settings.image_root)
        asyncio.run(_check_outputs(settings.output_url))
        drafted = {model.card.id for model in models if model.settings.draft or model.card.demo_draft}
        check_aliases(settings, [model.card for model in models], drafted=drafted, files=False)
        for model in models:
            with model.named():
                _check_checkpoints(model)
    _check_port(config.host, config.port)


def read_document(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML or JSON file. Raise ConfigurationInvalid, whose message quotes nothing of it."""
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigurationInvalid(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationInvalid(f"{path} is no YAML: {error.reason}") from None
    except yaml.YAMLError as error:
        # The parser's message quotes the line, which may contain a secret.
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" at line {mark.line + 1}"
        raise ConfigurationInvalid(
            f"{path} is no YAML: {getattr(error, 'problem', None) or 'unreadable'}{where}"
        ) from None
    if not isinstance(document, dict):
        raise ConfigurationInvalid(f"{path} is no Serve config: it must be a mapping with `applications`")
    return document


def _check_checkpoints(model: Served) -> None:
    """Check what the Generators will load, where it lies on this machine's disks or is named by an arg.

    What only the card names may be left out: without a GPU, and with no `base_model`, the demo is served.
    """
    settings, card = model.settings, model.card
    base = settings.base_model or card.base_model
    experts = settings.transformer_model or card.transformer_model or base
    in_parts = card.parts is not None and base == card.base_model
    if settings.base_model or (Path(base).is_dir() and not in_parts):
        check_base("base_model", Path(base), card)
    if settings.transformer_model or Path(experts).is_dir():
        check_experts("base_model" if experts == base else "transformer_model", Path(experts), card)
    if not in_parts:
        check_text_width("transformer_model", Path(base), Path(experts), card)
    for arg, name in (("base_model", settings.base_model), ("transformer_model", settings.transformer_model)):
        if name and not Path(name).is_dir():
            _check_repository(arg, name)
    # A card's experts go with a base model of the args; without one, the demo may be served.
    if settings.base_model and not settings.transformer_model and experts != base and not Path(experts).is_dir():
        _check_repository("transformer_model", experts)


def _check_repository(arg: str, name: str) -> None:
    from serve_app.models.download import Hub, check_repository  # noqa: PLC0415  the Hub's library takes half a second

    check_repository(arg, name, Hub())


def _check_port(host: str, port: int) -> None:
    """Bind the port for a moment. Serve's proxies share ports (SO_REUSEPORT), so a second service would start too."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # Connections of an earlier service that are still closing do not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            why = "another program listens on it" if in_use else str(error.strerror)
            raise ConfigurationInvalid(
                f"http_options: port {port} of {host} cannot be used: {why}; stop that program or set another port"
            ) from None


def _check_database(url: str) -> None:
    is_file = url.startswith("sqlite")
    place, advice = ("the SQLite file", "move it away") if is_file else ("the PostgreSQL server", "start it")
    try:
        migrate(url)
    except (SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        # Only the first line: the others repeat addresses. ArgumentError quotes the URL, which may contain a password.
        reason = "it is no database URL" if isinstance(error, ArgumentError) else str(cause).strip().partition("\n")[0]
        raise ConfigurationInvalid(
            f"database_url: {place} cannot be used: {reason}; {advice}, or correct database_url"
        ) from None


def _check_folder(arg: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if arg == "lora_cache_dir":
            with NamedTemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise ConfigurationInvalid(
            f"{arg}: {folder} cannot be used: {error.strerror}; set {arg} to another folder"
        ) from None


async def _check_outputs(url: str) -> None:
    """Write and remove a small file where outputs go."""
    store = OutputStore.from_url(url)
    try:
        await store.look()
    except OutputNotWritten as error:
        raise ConfigurationInvalid(f"output_url: nothing can be stored there: {error}") from None

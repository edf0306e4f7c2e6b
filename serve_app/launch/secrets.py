"""Secrets of a Serve config, hidden from Ray: Ray logs args, so they are moved from the args into the environment.

Example:
    with without_secrets(path) as masked:
        ray.init()
        masked.check_workers()
        ...  # `serve run` with the config at masked.path
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import ray

from serve_app.errors import ConfigurationInvalid
from serve_app.launch.preflight import IMPORT_PATH, read_document
from serve_app.secret_args import secrets_in
from serve_app.settings import ENVIRONMENT


@dataclass(frozen=True, slots=True)
class MaskedConfig:
    """A Serve config without secrets, and the environment variables that hold them instead."""

    path: Path
    variables: tuple[str, ...]

    def check_workers(self) -> None:
        """Check that Ray's workers have the variables; Ray must run.

        Raises:
            ConfigurationInvalid: Ray was started before, by another process, whose environment they have.
        """
        if self.variables and not ray.get(ray.remote(num_cpus=0)(_have).remote(self.variables)):
            raise ConfigurationInvalid(
                "the args hold a secret, which Ray would log, and Ray runs already with an environment of its own. Set "
                f"{', '.join(self.variables)} for every Ray process, and remove the secret from the args"
            )


@contextmanager
def without_secrets(path: Path) -> Iterator[MaskedConfig]:
    """Put the secrets of the config at `path` into this process's environment; yield the config without them.

    Raises:
        ConfigurationInvalid: two applications have different secrets, and a process has one environment.
    """
    document = read_document(path)
    moved: dict[str, str] = {}
    for app in document.get("applications") or []:
        if app.get("import_path") != IMPORT_PATH:
            continue
        for arg, value in secrets_in(app.get("args") or {}).items():
            if moved.setdefault(ENVIRONMENT[arg], value) != value:
                raise ConfigurationInvalid(f"{arg} differs between applications, and one environment holds one of them")
            del app["args"][arg]
    if not moved:
        yield MaskedConfig(path, ())
        return
    os.environ.update(moved)
    with TemporaryDirectory() as directory:  # readable by its owner only
        masked = Path(directory, path.name)
        masked.write_text(json.dumps(document))  # JSON is YAML
        yield MaskedConfig(masked, tuple(moved))


def _have(variables: tuple[str, ...]) -> bool:
    return all(os.environ.get(name) for name in variables)

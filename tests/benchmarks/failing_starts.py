"""Starts that must fail: exit status, seconds until the service has ended, and its last line, for each fault.

    python -m tests.benchmarks.failing_starts [--only empty_vae replica_type_error] [--state /folder]

Each fault is a `wan-lora serve` of its own, one after another. The first faults are found before Ray starts; those
whose names begin with `replica` only by a replica. A start that has not ended after five minutes is killed, and has no
status.

Prints a table and, last, one line of JSON. The load average stands beside each, as other work on the machine counts.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import deployments
from tests.lantern import CARD
from tests.service_process import ServiceProcess, free_port

WHOLE = Path(deployments.__file__).parent / "wan" / "demo" / "trained" / "checkpoint"
LONGEST_S = 300
WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class Ended:
    """How one start ended."""

    fault: str
    status: int | None
    seconds: float
    load: float  # average of the last minute, when it ended
    last: str


class Place:
    """The folder of one start, and what the fault needs beside it."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        self.stack = stack
        self.port = free_port()
        self.environment: dict[str, str] = {}

    def checkpoint(self) -> Path:
        """Return a copy of a whole checkpoint, to be damaged."""
        return shutil.copytree(WHOLE, self.directory / "checkpoint")

    def served(self) -> dict[str, Any]:
        """Return the args of a service of that copy."""
        folder = str(self.directory / "checkpoint")
        return {"base_model": folder, "transformer_model": folder}


Fault = Callable[[Place], dict[str, Any]]


def unknown_arg(_place: Place) -> dict[str, Any]:
    """Name an arg that does not exist."""
    return {"nonsense": 1}


def database_url_is_none(_place: Place) -> dict[str, Any]:
    """Name a database of a kind that is not served."""
    return {"database_url": "mysql://user@host/name"}


def database_down(_place: Place) -> dict[str, Any]:
    """Name a PostgreSQL server that is not there."""
    return {"database_url": f"postgresql://user@127.0.0.1:{free_port()}/name"}


def database_silent(place: Place) -> dict[str, Any]:
    """Name a PostgreSQL server that takes connections and says nothing."""
    silent = place.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    return {"database_url": f"postgresql://user@127.0.0.1:{silent.getsockname()[1]}/name"}


def port_in_use(place: Place) -> dict[str, Any]:
    """Take the port."""
    place.stack.enter_context(socket.create_server(("127.0.0.1", place.port)))
    return {}


def outputs_not_writable(_place: Place) -> dict[str, Any]:
    """Name a place where not even root writes."""
    return {"output_url": "/proc/no/such/place"}


def no_such_folder(place: Place) -> dict[str, Any]:
    """Name a checkpoint that is not there."""
    return {"base_model": str(place.directory / "nothing")}


def cut_off_expert(place: Place) -> dict[str, Any]:
    """Cut the last bytes off an expert."""
    weights = place.checkpoint() / "transformer_2" / WEIGHTS
    os.truncate(weights, weights.stat().st_size - 100)
    return place.served()


def empty_vae(place: Place) -> dict[str, Any]:
    """Empty the VAE's config."""
    (place.checkpoint() / "vae" / "config.json").write_text("{}")
    return place.served()


def wrong_class(place: Place) -> dict[str, Any]:
    """Give the VAE another class."""
    config = place.checkpoint() / "vae" / "config.json"
    config.write_text(config.read_text().replace("AutoencoderKLWan", "AutoencoderKL"))
    return place.served()


def no_such_class(place: Place) -> dict[str, Any]:
    """Name a class that diffusers does not have."""
    index = place.checkpoint() / "model_index.json"
    index.write_text(index.read_text().replace('"AutoencoderKLWan"', '"AutoencoderKLVan"'))
    return place.served()


def another_model(place: Place) -> dict[str, Any]:
    """Serve the checkpoint of one model as another."""
    place.checkpoint()
    return {**place.served(), "model": "wan22_5b"}


def no_such_repository(place: Place) -> dict[str, Any]:
    """Leave out the experts, which the card then wants from the Hub, and let no Hub answer."""
    place.checkpoint()
    place.environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{free_port()}", "HF_HOME": str(place.directory / "hub")}
    return {"base_model": str(place.directory / "checkpoint")}


def replica_finds_no_pipeline(place: Place) -> dict[str, Any]:
    """Name a pipeline that cannot be imported."""
    return _pipeline(place, "")


def replica_type_error(place: Place) -> dict[str, Any]:
    """Make a mistake in a pipeline."""
    return _pipeline(place, "def load(options): return 1 + 'one'")


def replica_out_of_memory(place: Place) -> dict[str, Any]:
    """Ask for memory that is not there: Serve tries again."""
    return _pipeline(place, "def load(options): raise MemoryError('no room')")


def replica_dies(place: Place) -> dict[str, Any]:
    """End the process without a word: Serve tries again."""
    return _pipeline(place, "def load(options): __import__('os')._exit(1)")


def _pipeline(place: Place, method: str) -> dict[str, Any]:
    code = f"class Broken:\n    @staticmethod\n    {method}\n" if method else ""
    (place.directory / "broken_pipeline.py").write_text(code)
    card = place.directory / "broken.yaml"
    card.write_text(CARD.read_text().replace("tests.lantern.pipeline:LanternPipeline", "broken_pipeline:Broken"))
    place.environment["PYTHONPATH"] = os.pathsep.join([str(place.directory), os.environ.get("PYTHONPATH", "")])
    return {"model": str(card)}


FAULTS: tuple[Fault, ...] = (
    unknown_arg,
    database_url_is_none,
    database_down,
    database_silent,
    port_in_use,
    outputs_not_writable,
    no_such_folder,
    cut_off_expert,
    empty_vae,
    wrong_class,
    no_such_class,
    another_model,
    no_such_repository,
    replica_finds_no_pipeline,
    replica_type_error,
    replica_out_of_memory,
    replica_dies,
)


def start(fault: Fault, directory: Path) -> Ended:
    """Start a service with the fault, and wait until it has ended."""
    with ExitStack() as stack:
        place = Place(directory, stack)
        args = {"model": "wan22_14b_t2v", **fault(place)}
        service = ServiceProcess(directory, place.environment, **args)
        service.port = place.port
        started = time.monotonic()
        service.launch()
        try:
            status: int | None = service.ended(LONGEST_S)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            seconds = time.monotonic() - started
            service.kill()
        last = service.log.read_text().strip().splitlines()[-1].replace(str(directory), "...")
        return Ended(fault.__name__, status, round(seconds, 1), round(os.getloadavg()[0], 1), last)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[fault.__name__ for fault in FAULTS])
    parser.add_argument("--state", type=Path, help="where the starts keep their files; a temporary folder")
    options = parser.parse_args()
    rows = []
    print(f"{'fault':<28}{'status':>7}{'seconds':>9}{'load':>6}  last line")
    with tempfile.TemporaryDirectory(dir=options.state) as scratch:
        for fault in FAULTS:
            if options.only and fault.__name__ not in options.only:
                continue
            directory = Path(scratch, fault.__name__)
            directory.mkdir()
            row = start(fault, directory)
            rows.append(asdict(row))
            print(f"{row.fault:<28}{row.status!s:>7}{row.seconds:>9}{row.load:>6}  {row.last}", flush=True)
    print(json.dumps({"benchmark": "failing_starts", "cores": os.cpu_count(), "rows": rows}))


if __name__ == "__main__":
    main()

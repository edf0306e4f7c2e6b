"""The service of two models on a cluster of several nodes, and what its database, its bucket and Serve say of it."""

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from serve_app.jobs.states import RenderState
from serve_app.jobs.tables import renders
from tests.chaos.clients import Job, Load, Result
from tests.chaos.outcome import Outcome, outcome_of
from tests.cluster.pipeline import write_slow_card
from tests.cluster.ray_cluster import RayCluster
from tests.fixtures.s3 import S3Server
from tests.fixtures.store import connect
from tests.lantern import ENVIRONMENT
from tests.lantern.loras import save_lora

WITHIN_S = 240  # for what takes seconds on an idle machine
BUCKET = "outputs"
CLIENTS = 8
MODELS = ("lantern_1b", "lantern_2b")
GPUS = ("gpu-1", "gpu-2")
FRONT = ("cpu", "gpu-1")  # nodes with the resource that Ingress and Dispatcher take
_KINDS = 4
_LORA = "lantern.safetensors"


class Fleet:
    """A head without work, a CPU node, and two with a GPU for each model; the API is served on one of these, too."""

    def __init__(self, directory: Path, shared: Path, database_url: str, redis: str, s3: S3Server) -> None:
        """`shared` is a folder that every node sees."""
        self._shared = shared
        self._database_url = database_url
        self._s3 = s3
        self.cluster = RayCluster(directory, redis, {**ENVIRONMENT, **s3.environment()})
        self._ports: dict[str, int] = {}  # of the proxies
        self._expected: dict[str, str | None] = {}
        self._args: dict[str, Any] = {
            "profile": "gpu",
            "models": [
                {"model": str(write_slow_card(shared / f"{model}.yaml", model)), "generator_resources": {model: 1}}
                for model in MODELS
            ],
            "lora_root": str(shared / "loras"),
            "lora_cache_dir": str(shared / "cache"),
            "output_url": f"s3://{BUCKET}",
            "database_url": database_url,
            "ingress_replicas": len(FRONT),
            "service_resources": {"front": 1},
            "min_generators": len(GPUS),
            "max_generators": len(GPUS) + 1,
            "lease_s": 5,
            "max_attempts": 10,
        }

    @property
    def url(self) -> str:
        """Return the address of the proxy on the CPU node."""
        return self.url_of("cpu")

    def url_of(self, node: str) -> str:
        """Return the address of the proxy on that node."""
        return f"http://127.0.0.1:{self._ports[node]}"

    def start(self) -> None:
        """Start the nodes and the service, and wait until it runs."""
        self._s3.create(BUCKET)
        save_lora(self._shared / "loras" / _LORA)
        self._start_node("head", cpus=0)
        self.cluster.wait_for_nodes(1)
        self._start_node("cpu", cpus=2, front=10)
        self._start_gpu_node("gpu-1", front=10)
        self._start_gpu_node("gpu-2")
        self.cluster.wait_for_nodes(4)
        self.deploy()

    def _start_node(self, name: str, *, cpus: int, gpus: int = 0, **resources: float) -> None:
        self._ports[name] = self.cluster.start(name, cpus=cpus, gpus=gpus, **resources)

    def _start_gpu_node(self, name: str, **resources: float) -> None:
        self._start_node(name, cpus=2 + len(MODELS), gpus=len(MODELS), **dict.fromkeys(MODELS, 1.0), **resources)

    def join(self, name: str) -> None:
        """Start one more node with GPUs."""
        self._start_gpu_node(name)

    def revive_head(self) -> None:
        """Start the head again, as often as it takes (as a kubelet does), and wait until Serve is there."""
        head = self.cluster.nodes["head"]

        def runs() -> bool:
            if not head.processes():  # Ray gives a start up after 30 s, which are short on a busy machine
                head.start()
            return self.cluster.application().get("status") == "RUNNING"

        wait(runs, head.log)

    def deploy(self, **args: Any) -> None:
        """Deploy the service, with other args if given, and wait until it runs."""
        self._args |= args
        application = {"name": "wan", "route_prefix": "/", "import_path": "serve_app:build", "args": self._args}
        self.cluster.deploy(
            {
                "proxy_location": "EveryNode",
                "http_options": {"host": "127.0.0.1", "port": self.cluster.http_port},
                "applications": [application],
            }
        )
        time.sleep(1)  # the controller takes the new configuration up in its next round
        wait(lambda: self.cluster.application().get("status") == "RUNNING", self.cluster.application)
        wait(self._answers, lambda: "the API does not answer on every node that serves it")

    def _answers(self) -> bool:
        with suppress(httpx.HTTPError):
            urls = [f"{self.url_of(node)}/health" for node in FRONT]
            return all(httpx.get(url, timeout=5).status_code == httpx.codes.OK for url in urls)
        return False

    def nodes_of(self, deployment: str) -> list[str]:
        """Return the names of the nodes where its replicas run, sorted; of Generators and Dispatchers, each model's."""
        names = {node.address: name for name, node in self.cluster.nodes.items()}
        return sorted(names[replica["node_ip"]] for replica in self._replicas(deployment))

    def generators_on(self, node: str) -> set[str]:
        """Return the ids of the Generators on that node, one of each model."""
        address = self.cluster.nodes[node].address
        found = {str(r["replica_id"]) for r in self._replicas("Generator") if r["node_ip"] == address}
        assert len(found) == len(MODELS)
        return found

    def replica_ids(self) -> set[str]:
        """Return the ids of all replicas that run."""
        names = ("Ingress", "Dispatcher", "Generator")
        return {replica["replica_id"] for name in names for replica in self._replicas(name)}

    def _replicas(self, deployment: str) -> list[dict[str, Any]]:
        names = [deployment] if deployment == "Ingress" else [f"{deployment}-{model}" for model in MODELS]
        return [replica for name in names for replica in self.cluster.replicas(name)]

    def rendering(self) -> set[str]:
        """Return the ids of the Generators with a render under way."""
        query = select(renders.c.replica).where(renders.c.state == RenderState.PROCESSING)
        with connect(self._database_url) as connection:
            return set(connection.execute(query).scalars())

    def rendered(self) -> Counter[str]:
        """Return how many renders each Generator has made, by its id."""
        query = select(renders.c.replica).where(renders.c.state == RenderState.SUCCEEDED)
        with connect(self._database_url) as connection:
            return Counter(connection.execute(query).scalars())

    def load(self, name: str, count: int, *, steps: int = 10, clients: int = CLIENTS) -> Load:
        """Send so many requests of one render each, for each model in turn.

        A client waits for its own before it sends the next.
        """
        jobs = [Job(f"{name}-{number}", *_kind(number % _KINDS, steps)) for number in range(count)]
        return Load(self.url, jobs, clients)

    def outcome(self, name: str, load: Load) -> tuple[Outcome, Sequence[Result]]:
        """Return what became of that load, once all of it has ended; the first load says which frames are right."""
        results = load.results(WITHIN_S)
        if not self._expected:
            self._expected = {result.job.spec: result.frames for result in results}
        outcome = outcome_of(results, self._expected, url=self._database_url, prefix=name, files=self._stored())
        return outcome, results

    def _stored(self) -> Counter[str]:
        """Return the number of videos in the bucket, by request."""
        listing = httpx.get(f"{self._s3.url}/{BUCKET}", params={"list-type": "2"}).raise_for_status().text
        return Counter(key.partition("/")[0] for key in re.findall(r"<Key>([^<]*\.zip)</Key>", listing))


def _kind(number: int, steps: int) -> tuple[str, dict[str, Any]]:
    """Return the name of a kind of render, whose frames do not depend on the steps; and the request."""
    model, seed = MODELS[number % len(MODELS)], number // len(MODELS)
    prompt = {"prompt": "a lantern", "num_frames": 9, "seed": seed, "sample_steps": steps, "output_format": "png"}
    return f"{model}, seed {seed}", {"model": model, "loras": [{"path": _LORA}], "prompts": [prompt]}


def wait(true: Callable[[], bool], otherwise: Callable[[], object]) -> None:
    """Wait until something is true; `otherwise` says what is to be seen in its place."""
    deadline = time.monotonic() + WITHIN_S
    while not true():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.2)

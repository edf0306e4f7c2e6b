"""Kubernetes manifests as `kubectl apply -k` sends them: what a kustomization names, and what those name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

KUBERAY = Path(__file__).parents[2] / "configs" / "kuberay"
CLUSTERS = ("one-gpu", "fleet")

Manifest = dict[str, Any]


def files_of(folder: Path) -> Iterator[Path]:
    """Yield the files that a kustomization and those below it name."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    for name in kustomization["resources"]:
        path = (folder / name).resolve()
        if path.is_dir():
            yield from files_of(path)
        else:
            yield path


def manifests_of(cluster: str) -> list[Manifest]:
    """Return every object of one cluster."""
    return [
        document
        for path in files_of(KUBERAY / cluster)
        for document in yaml.safe_load_all(path.read_text())
        if document is not None
    ]


def ray_service_of(cluster: str) -> Manifest:
    """Return its RayService."""
    (service,) = [manifest for manifest in manifests_of(cluster) if manifest["kind"] == "RayService"]
    return service


def serve_config_of(cluster: str) -> Manifest:
    """Return what Serve gets: the text in `serveConfigV2`, parsed."""
    config: Manifest = yaml.safe_load(ray_service_of(cluster)["spec"]["serveConfigV2"])
    return config


def pods_of(cluster: str) -> dict[str, Manifest]:
    """Return the pod specs of the Ray cluster: of the head, and of each group by its name."""
    config = ray_service_of(cluster)["spec"]["rayClusterConfig"]
    groups = {group["groupName"]: group["template"]["spec"] for group in config.get("workerGroupSpecs", [])}
    return {"head": config["headGroupSpec"]["template"]["spec"], **groups}


def containers_of(cluster: str) -> list[Manifest]:
    """Return every container of the Ray cluster and of the cluster's jobs that runs our image."""
    jobs = [m["spec"]["template"]["spec"] for m in manifests_of(cluster) if m["kind"] == "Job"]
    return [container for pod in (*pods_of(cluster).values(), *jobs) for container in pod["containers"]]

"""KubeRay manifests: strictly valid, and in agreement with the service, with Ray and with one another."""

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml
from ray.serve.schema import ServeDeploySchema

from serve_app.launch.connections import ENVIRONMENT as ENVIRONMENT_OF_CONNECTIONS
from serve_app.launch.exposure import is_loopback
from serve_app.settings import ENVIRONMENT, Settings
from tests.configs.manifests import (
    CLUSTERS,
    KUBERAY,
    Manifest,
    containers_of,
    files_of,
    manifests_of,
    pods_of,
    ray_service_of,
    serve_config_of,
)

ROOT = Path(__file__).parents[2]
SCHEMA = Path(__file__).parent / "schemas" / "rayservice-v1.schema.json"
KUBERNETES = "1.37"
CUSTOM = {"RayService", "PodMonitor"}  # kinds that an operator brings
STORE_S = 60  # to encode and store the last video after its render

every_cluster = pytest.mark.parametrize("cluster", CLUSTERS)


def _settings(cluster: str) -> Settings:
    (application,) = serve_config_of(cluster)["applications"]
    return Settings.from_args(application["args"])


@every_cluster
def test_every_object_of_kubernetes_own_is_strictly_valid(cluster: str) -> None:
    checked = [manifest for manifest in manifests_of(cluster) if manifest["kind"] not in CUSTOM]
    for manifest in checked:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    assert {manifest["kind"] for manifest in checked} >= {"NetworkPolicy", "Ingress", "PersistentVolumeClaim"}


@pytest.mark.slow
@every_cluster
def test_the_ray_service_is_valid_for_kuberay_and_its_pods_for_kubernetes(cluster: str) -> None:
    jsonschema.validate(ray_service_of(cluster), json.loads(SCHEMA.read_text()))
    for name, spec in pods_of(cluster).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_the_example_of_the_secret_is_valid_and_has_every_key_that_is_asked_for() -> None:
    secret = yaml.safe_load((KUBERAY / "fleet" / "secret.example.yaml").read_text())
    kubernetes_validate.validate(secret, KUBERNETES, strict=True)
    asked = {reference["key"] for cluster in CLUSTERS for reference in _secret_references(manifests_of(cluster))}
    assert asked <= secret["stringData"].keys()
    names = {reference["name"] for cluster in CLUSTERS for reference in _secret_references(manifests_of(cluster))}
    assert names == {secret["metadata"]["name"]}


def _secret_references(node: Any) -> list[Manifest]:
    if isinstance(node, list):
        return [found for item in node for found in _secret_references(item)]
    if not isinstance(node, dict):
        return []
    own = [node["secretKeyRef"]] if "secretKeyRef" in node else []
    return own + [found for item in node.values() for found in _secret_references(item)]


def test_every_file_is_part_of_a_cluster() -> None:
    reached = {path for cluster in CLUSTERS for path in files_of(KUBERAY / cluster)}
    written = {path for path in KUBERAY.rglob("*.yaml") if path.stem not in ("kustomization", "secret.example")}
    assert {path.resolve() for path in written} == reached


@every_cluster
def test_serve_accepts_the_config_and_knows_every_key(cluster: str) -> None:
    config = serve_config_of(cluster)
    schema = ServeDeploySchema.model_validate(config)
    assert config.keys() <= ServeDeploySchema.model_fields.keys()
    (application,) = schema.applications
    assert config["applications"][0].keys() <= type(application).model_fields.keys()
    assert application.import_path == "serve_app:build"
    assert config["http_options"].keys() <= type(schema.http_options).model_fields.keys()


@every_cluster
def test_the_service_accepts_its_args(cluster: str) -> None:
    settings = _settings(cluster)
    assert settings.profile == "gpu"


@every_cluster
def test_secrets_reach_the_service_by_the_names_that_it_reads(cluster: str) -> None:
    read = set(ENVIRONMENT.values()) | {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}  # obstore reads these two
    for container in containers_of(cluster):
        assert {entry["name"] for entry in container["env"] if "valueFrom" in entry} <= read


@every_cluster
def test_a_service_that_others_reach_has_a_key(cluster: str) -> None:
    host = serve_config_of(cluster)["http_options"]["host"]
    for container in (each for each in containers_of(cluster) if each["name"].startswith("ray-")):
        variables = {entry["name"] for entry in container["env"]}
        assert is_loopback(host) or _settings(cluster).open or ENVIRONMENT["admin_key"] in variables


def test_what_serves_the_api_goes_to_pods_without_a_gpu() -> None:
    groups = ray_service_of("fleet")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    # KubeRay puts the value into a command line, so the JSON stands in quotes of its own.
    have = {
        group["groupName"]: json.loads(json.loads(group["rayStartParams"].get("resources", '"{}"'))) for group in groups
    }
    asked = _settings("fleet").service_resources
    assert asked
    assert [name for name, resources in have.items() if asked.keys() <= resources.keys()] == ["cpu"]


@every_cluster
def test_no_timeout_ends_the_longest_render(cluster: str) -> None:
    longest = _settings(cluster).render_timeout_s
    if cluster == "fleet":
        gpu = pods_of(cluster)["gpu"]
        hook = " ".join(gpu["containers"][0]["lifecycle"]["preStop"]["exec"]["command"])
        (deadline,) = re.findall(r"--deadline-remaining-seconds (\d+)", hook)
        assert int(deadline) >= longest + STORE_S
        assert gpu["terminationGracePeriodSeconds"] > int(deadline)
        deletion_s = ray_service_of(cluster)["spec"]["rayClusterDeletionDelaySeconds"]
        assert deletion_s >= gpu["terminationGracePeriodSeconds"] + STORE_S
    assert serve_config_of(cluster)["http_options"]["request_timeout_s"] >= longest


@every_cluster
def test_a_gpu_pod_has_as_many_gpus_as_a_generator_takes(cluster: str) -> None:
    gpus = [
        int(container["resources"][kind]["nvidia.com/gpu"])
        for container in containers_of(cluster)
        for kind in ("requests", "limits")
        if "nvidia.com/gpu" in container["resources"][kind]
    ]
    assert set(gpus) == {_settings(cluster).gpus_per_generator}


@every_cluster
def test_connections_that_say_nothing_are_closed_as_wan_lora_serve_has_it(cluster: str) -> None:
    for container in (each for each in containers_of(cluster) if each["name"].startswith("ray-")):
        told = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert told.items() >= ENVIRONMENT_OF_CONNECTIONS.items()
    keep_alive_s = yaml.safe_load((ROOT / "serve_config.yaml").read_text())["http_options"]["keep_alive_timeout_s"]
    assert serve_config_of(cluster)["http_options"]["keep_alive_timeout_s"] == keep_alive_s


@every_cluster
def test_the_way_in_takes_every_body_that_the_service_takes_and_waits_as_long(cluster: str) -> None:
    (ingress,) = [manifest for manifest in manifests_of(cluster) if manifest["kind"] == "Ingress"]
    told = {name.rpartition("/")[2]: value for name, value in ingress["metadata"]["annotations"].items()}
    settings = _settings(cluster)
    assert int(told["proxy-body-size"].removesuffix("m")) * 2**20 >= settings.max_body_bytes
    assert int(told["proxy-read-timeout"]) >= settings.render_timeout_s
    assert told["proxy-buffering"] == "off"


@every_cluster
def test_versions_agree(cluster: str) -> None:
    assert ray_service_of(cluster)["spec"]["rayClusterConfig"]["rayVersion"] == ray.__version__
    release = version("wan-lora-serve")
    ours = {container["image"] for container in containers_of(cluster)}
    assert ours <= {f"wan-lora-serve:{release}", f"wan-lora-serve:{release}-cpu"}


@every_cluster
def test_ports_agree(cluster: str) -> None:
    port = serve_config_of(cluster)["http_options"]["port"]
    serving = [c for c in containers_of(cluster) if any(p["name"] == "serve" for p in c.get("ports", []))]
    assert serving
    for container in serving:
        assert {p["containerPort"] for p in container["ports"] if p["name"] == "serve"} == {port}
    (ingress,) = [manifest for manifest in manifests_of(cluster) if manifest["kind"] == "Ingress"]
    backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {
        "name": f"{ray_service_of(cluster)['metadata']['name']}-serve-svc",
        "port": {"number": port},
    }


@every_cluster
def test_pods_run_without_root_and_write_only_to_volumes(cluster: str) -> None:
    for pod in pods_of(cluster).values():
        assert pod["securityContext"]["runAsNonRoot"]
    for container in containers_of(cluster):
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"/data", "/tmp"} <= {mount["mountPath"] for mount in container["volumeMounts"]}  # noqa: S108 - a pod's


def test_the_fleet_grows_to_what_the_service_may_ask_for() -> None:
    groups = {g["groupName"]: g for g in ray_service_of("fleet")["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    settings = _settings("fleet")
    assert groups["gpu"]["maxReplicas"] == settings.max_generators
    assert groups["gpu"]["minReplicas"] == settings.min_generators
    assert groups["cpu"]["minReplicas"] >= settings.ingress_replicas


@every_cluster
def test_no_one_but_the_cluster_and_its_operator_reaches_rays_own_ports(cluster: str) -> None:
    (policy,) = [
        m for m in manifests_of(cluster) if m["kind"] == "NetworkPolicy" and m["metadata"]["name"] == "wan-lora"
    ]
    own = policy["spec"]["podSelector"]["matchLabels"]
    for template in _templates(cluster):
        assert own.items() <= template["metadata"]["labels"].items()
    for rule in policy["spec"]["ingress"]:
        if rule["from"] == [{"podSelector": {"matchLabels": own}}]:
            continue
        ports = {port["port"] for port in rule["ports"]}
        operator = any("kuberay-operator" in str(peer) for peer in rule["from"])
        assert ports <= ({8000, 8265} if operator else {8000, 8080})


def _templates(cluster: str) -> list[Manifest]:
    config = ray_service_of(cluster)["spec"]["rayClusterConfig"]
    return [config["headGroupSpec"]["template"], *(g["template"] for g in config.get("workerGroupSpecs", []))]

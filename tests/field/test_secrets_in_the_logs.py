"""No secret of a service or its clients is in a log, an answer, a metric, a trace, or for long in the database.

The logs are Ray's, the terminal's, and those of the proxies and replicas. The database holds a token until the request
has ended.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import ray
import yaml
from sqlalchemy import select

from serve_app.access.keys import Scope, new_key
from serve_app.application import application
from serve_app.cli.database import in_store
from serve_app.errors import ConfigurationInvalid
from serve_app.jobs.tables import metadata
from serve_app.launch import supervisor
from serve_app.launch.preflight import read_config
from serve_app.settings import Settings
from tests.client import Client, body
from tests.fixtures.collector import Collector
from tests.fixtures.keys import bearer
from tests.fixtures.s3 import S3Server
from tests.fixtures.store import connect
from tests.postgres_server import PostgresServer
from tests.service_process import ServiceProcess

PLANTED = {
    "the database's password": "plantedDatabasePassword",
    "the service's token": "hf_plantedTokenOfTheService",
    "a request's token": "hf_plantedTokenOfARequest",
    "the storage's secret": "plantedStorageSecretKey",
    "the operator's key": "plantedKeyOfTheOperator-0123456789",
    "what signs webhooks": "plantedSecretOfTheWebhooks",
}
WITHIN_S = 90.0  # Ray's processes report metrics every 10 s
# What answers themselves carry is no leak in them.
GIVEN_OUT = "the signature of a link"


@pytest.fixture
def ray_directory() -> Iterator[Path]:
    """Yield where Ray keeps its session; short, because the paths of its sockets have at most a hundred characters."""
    directory = Path(mkdtemp(prefix="ray-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def storage(s3_server: S3Server) -> dict[str, str]:
    """Return the environment of a service that keeps outputs in a bucket."""
    s3_server.create("videos")
    return s3_server.environment(PLANTED["the storage's secret"])


@pytest.mark.slow
def test_no_log_answer_metric_trace_or_row_of_a_service_holds_a_secret(
    tmp_path: Path, ray_directory: Path, storage: dict[str, str], postgres: PostgresServer, collector: Collector
) -> None:
    password = PLANTED["the database's password"]
    address = postgres.create_database("secrets").replace("://postgres@", f"://postgres:{password}@")
    assert password in address
    tenants = new_key("team-a", "planted", {Scope.SUBMIT, Scope.READ})
    planted = {**PLANTED, "a tenant's key": tenants.token.rpartition(tenants.key.id)[2]}
    service = ServiceProcess(
        tmp_path,
        {**storage, "RAY_TMPDIR": str(ray_directory)},
        database_url=address,
        admin_key=PLANTED["the operator's key"],
        hf_token=PLANTED["the service's token"],
        webhook_secret=PLANTED["what signs webhooks"],
        otlp_endpoint=collector.url,
        output_url="s3://videos/outputs",
    )
    service.start()
    try:
        in_store(Settings(database_url=address), lambda store: store.keys.add(tenants.key))
        answers: list[str] = []
        with Client(service.url) as client:
            client.http.event_hooks["response"].append(lambda answer: answers.append(text_of(answer)))
            client.http.headers.update(bearer(tenants.token))
            request_id = client.submit({**body(), "hf_token": PLANTED["a request's token"]})
            ended = client.wait(request_id)
            refused = client.http.post("/v1/inference", json={"hf_token": PLANTED["a request's token"], "loras": 1})
            (video,) = client.result(request_id)["outputs"]["videos"]
            client.http.get(f"/v1/requests/{request_id}", headers=bearer(PLANTED["the operator's key"]))
            wait_until(lambda: any(request_id in str(span) for span in collector.spans))
            wait_until(lambda: "ray_wan_attempts_total" in metrics(client))
            unknown = client.http.get("/v1/models", headers=bearer(tenants.token[:-1] + "_"))
            del client.http.headers["Authorization"]
            assert client.http.get(video["url"]).is_redirect
        assert ended["status"] == "succeeded"
        assert refused.is_client_error
        assert unknown.status_code == httpx.codes.UNAUTHORIZED
    finally:
        service.stop()
    logs = [path for path in ray_directory.rglob("*") if "logs" in path.parts and path.is_file()]
    assert any("replica" in path.name for path in logs)  # these are the logs, and not nothing
    for path in [service.log, *logs]:
        content = path.read_bytes()
        logged = {**planted, GIVEN_OUT: parse_qs(urlsplit(video["url"]).query)["signature"][0]}
        assert [what for what, secret in logged.items() if secret.encode() in content] == [], path
    stored = rows_of(address)
    for text in [*answers, *stored, *map(str, collector.spans)]:
        assert [what for what, secret in planted.items() if secret in text] == [], text
    assert answers
    assert any(tenants.key.secret_sha256 in row for row in stored)  # its hash, and only that


def metrics(client: Client) -> str:
    return client.http.get("/metrics", headers=bearer(PLANTED["the operator's key"])).raise_for_status().text


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(1)


def text_of(answer: httpx.Response) -> str:
    return f"{answer.headers}{answer.read()!r}"


def rows_of(database_url: str) -> list[str]:
    """Return every row of every table."""
    with connect(database_url) as connection:
        return [str(row) for table in metadata.sorted_tables for row in connection.execute(select(table)).all()]


@pytest.mark.parametrize(
    ("args", "variable"),
    [
        ({"database_url": "postgresql://wan:PLANTED@db.internal/wan"}, "DATABASE_URL"),
        ({"database_url": "postgresql://db.internal/wan?user=wan&password=PLANTED"}, "DATABASE_URL"),
        ({"database_url": "postgresql://db.internal/wan?sslpassword=PLANTED"}, "DATABASE_URL"),
        ({"hf_token": "PLANTED"}, "HF_TOKEN"),
        ({"admin_key": "PLANTED" * 5}, "WAN_ADMIN_KEY"),
    ],
)
def test_an_application_whose_args_hold_a_secret_is_not_built(args: dict[str, str], variable: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=variable) as caught:
        application(args)
    assert "PLANTED" not in str(caught.value)


@pytest.mark.parametrize(
    "args",
    [
        {"database_url": "postgresql://wan:PLAN/TED@db.internal/wan"},
        {"database_url": "postgresql://wan:PLANTED@db.internal:port/wan"},
        {"database_url": "mysql://wan:PLANTED@db.internal/wan"},
        {"output_url": "s3://key:PLANTED@bucket/prefix"},
        {"hub_endpoint": "https://me:PLANTED@hub.internal"},
        {"base_url": "https://me:PLANTED@videos.example"},
    ],
)
def test_a_secret_in_the_wrong_place_is_refused_before_ray_starts_and_not_repeated(
    args: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "serve_config.yaml"
    app = {"name": "wan", "route_prefix": "/", "import_path": "serve_app:build", "args": {"profile": "cpu", **args}}
    config.write_text(yaml.safe_dump({"http_options": {"host": "127.0.0.1"}, "applications": [app]}))
    monkeypatch.chdir(tmp_path)
    assert supervisor.serve(config) == 1
    said = capfd.readouterr()
    assert not ray.is_initialized()
    assert next(iter(args)) in said.err.splitlines()[-1]
    assert "PLAN" not in said.out + said.err
    assert "TED" not in said.out + said.err


def test_a_config_that_is_no_yaml_is_not_quoted(tmp_path: Path) -> None:
    config = tmp_path / "serve_config.yaml"
    config.write_text("applications:\n- args:\n    hf_token: 'PLANTED\n  x: [")
    with pytest.raises(ConfigurationInvalid, match="is no YAML") as caught:
        read_config(config)
    assert "PLANTED" not in str(caught.value)


def test_every_secret_arg_has_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://wan:PLANTED@db.internal/wan")
    monkeypatch.setenv("HF_TOKEN", "PLANTED")
    settings = Settings.from_args({})
    assert settings.database_url == "postgresql://wan:PLANTED@db.internal/wan"
    assert settings.hf_token is not None
    assert settings.hf_token.get_secret_value() == "PLANTED"
    assert "PLANTED" not in repr(settings)

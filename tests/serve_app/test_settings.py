"""Settings: defaults, environment variables, args, and errors that name the wrong one."""

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from serve_app.settings import ENVIRONMENT, Settings


def test_the_defaults_are_those_of_the_design(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ENVIRONMENT.values():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    settings = Settings()
    assert (settings.profile, settings.model, settings.dtype, settings.offload) == (
        "auto",
        "wan22_14b_t2v",
        "auto",
        "auto",
    )
    assert settings.lora_root == tmp_path / "loras"
    assert settings.output_url == f"file://{tmp_path}/var/outputs"
    assert settings.database_url == f"sqlite:///{tmp_path}/var/jobs.db"


@pytest.mark.parametrize(
    ("variable", "value", "field", "expected"),
    [
        ("WORKFLOWS_BASE_PATH", "/srv/loras", "lora_root", Path("/srv/loras")),
        ("OUTPUT_BASE_PATH", "/srv/out", "output_url", "file:///srv/out"),
        ("BASE_URL", "https://video.example/", "base_url", "https://video.example"),
        ("OFFLOAD_MODE", "sequential", "offload", "sequential"),
        ("INFERENCE_TIMEOUT", "120", "render_timeout_s", 120),
    ],
)
def test_the_references_environment_counts_where_the_args_are_silent(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, field: str, expected: object
) -> None:
    monkeypatch.setenv(variable, value)
    assert getattr(Settings(), field) == expected


def test_args_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKFLOWS_BASE_PATH", "/from/environment")
    assert Settings.model_validate({"lora_root": "/from/args"}).lora_root == Path("/from/args")


def test_a_token_is_not_shown_and_survives_the_way_to_a_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    settings = pickle.loads(pickle.dumps(Settings()))  # noqa: S301 - what Serve does between processes
    assert "hf_secret" not in repr(settings)
    assert settings.hf_token is not None
    assert settings.hf_token.get_secret_value() == "hf_secret"


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ({"ofload": "none"}, "ofload"),
        ({"offload": "sometimes"}, "offload"),
        ({"profile": "tpu"}, "profile"),
        ({"dtype": "float16"}, "dtype"),
        ({"upscale_delay_s": 1.9}, "upscale_delay_s"),
        ({"downscale_delay_s": 4.9}, "downscale_delay_s"),
        ({"database_url": "mysql://host/jobs"}, "database_url"),
        ({"base_url": "video.example"}, "base_url"),
        ({"render_timeout_s": 0}, "render_timeout_s"),
        ({"max_generators": 0}, "max_generators"),
        ({"min_generators": 3, "max_generators": 2}, "min_generators"),
        ({"render_timeout_s": float("inf")}, "render_timeout_s"),
        ({"lora_max_gib": float("nan")}, "lora_max_gib"),
        ({"max_queued": 10**400}, "max_queued"),
        ({"lease_s": 10**400}, "lease_s"),
        ({"max_queued": True}, "max_queued"),
        ({"max_wait_s": False}, "max_wait_s"),
        ({"allowed_hosts": ["https://video.example/"]}, "allowed_hosts"),
        ({"lora_private_hosts": ["http://10.0.0.1"]}, "lora_private_hosts"),
    ],
)
def test_a_wrong_arg_is_named(args: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Settings.model_validate(args)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////tmp/state/jobs.db", "sqlite:////tmp/state/jobs.db"),
        ("postgresql://user:pw@host:5432/jobs", "postgresql://user:pw@host:5432/jobs"),
        ("postgres://host/jobs", "postgresql://host/jobs"),
    ],
)
def test_database_urls(url: str, expected: str) -> None:
    assert Settings(database_url=url).database_url == expected


@pytest.mark.parametrize(("written", "mode"), [(True, "on"), (False, "off"), ("dry-run", "dry-run")])
def test_yaml_may_write_on_and_off(written: object, mode: str) -> None:
    assert Settings.model_validate({"retention": written}).retention == mode

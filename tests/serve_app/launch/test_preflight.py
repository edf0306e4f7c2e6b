"""What is checked before Ray starts; `tests/field` shows how a start that fails looks to a person."""

import json
import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub
import pytest

from serve_app.errors import ConfigurationInvalid
from serve_app.jobs import engines
from serve_app.launch.preflight import ServeConfig, check, read_config
from serve_app.launch.supervisor import is_final, told
from tests.service_process import free_port

if TYPE_CHECKING:
    from deployments.wan.demo.untrained import DemoCheckpoint


def checked(directory: Path, **args: Any) -> ServeConfig:
    """Read and check a config with these args, and every place of the service in `directory`."""
    places = {
        "lora_root": f"{directory}/loras",
        "lora_cache_dir": f"{directory}/cache",
        "output_url": f"{directory}/outputs",
        "database_url": f"sqlite:////{directory}/jobs.db",
    }
    path = directory / "serve_config.json"
    path.write_text(json.dumps(document(free_port(), **{**places, "profile": "cpu", **args})))
    config = read_config(path)
    check(config)
    return config


def document(port: int, **args: Any) -> dict[str, Any]:
    application = {"name": "wan", "route_prefix": "/", "import_path": "serve_app:build", "args": args}
    return {"http_options": {"host": "127.0.0.1", "port": port}, "applications": [application]}


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"- 1\n", b"id: x\n", b"{", b""])
def test_a_card_that_is_none_is_named(content: bytes, tmp_path: Path) -> None:
    card = tmp_path / "card.yaml"
    card.write_bytes(content)
    with pytest.raises(ConfigurationInvalid, match=r"model: the card of .*card\.yaml"):
        checked(tmp_path, model=str(card))


def test_a_config_that_is_right_passes_and_leaves_no_output_behind(tmp_path: Path) -> None:
    config = checked(tmp_path)
    assert config.applications == ("wan",)
    assert config.url == f"http://127.0.0.1:{config.port}"
    assert list((tmp_path / "outputs").iterdir()) == []


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        ({"nonsense": 1}, ("nonsense",)),
        ({"lease_s": "long"}, ("lease_s",)),
        ({"profile": "tpu"}, ("profile",)),
        ({"model": "wan99"}, ("wan99", "wan22_14b_t2v")),
        ({"database_url": "mysql://user:hush-hush@host/name"}, ("database_url", "sqlite", "postgresql")),
        ({"database_url": "sqlite:////proc/no/such/place.db"}, ("database_url",)),
        ({"output_url": "/proc/no/such/place"}, ("output_url",)),
        ({"output_url": "ftp://host/place"}, ("output_url", "s3://")),
        ({"base_model": "no/such/place"}, ("base_model", "no/such/place")),
        ({"base_model": "/etc/hostname"}, ("base_model", "directory")),
        ({"lora_root": "/proc/no/such/place"}, ("lora_root", "another folder")),
        ({"aliases": {"mine": {"model": "wan99", "loras": []}}}, ("aliases.mine.model", "wan99")),
        ({"lora_cache_dir": "/proc/no/such/place"}, ("lora_cache_dir",)),
        ({"base_model": "/no/such/place"}, ("base_model", "/no/such/place")),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_arg_is_named(tmp_path: Path, args: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationInvalid) as refused:
        checked(tmp_path, **args)
    assert all(part in refused.value.message for part in parts), refused.value.message
    assert "hush-hush" not in refused.value.message


@pytest.mark.parametrize("arg", ["base_model", "transformer_model"])
def test_a_repository_that_cannot_be_reached_and_is_not_in_the_cache_is_named(
    arg: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ConfigurationInvalid, match=rf"{arg}: no-such-org/no-such-model: .*name a directory"):
        checked(tmp_path, **{arg: "no-such-org/no-such-model"})


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "SERVER_TIMEOUTS", {"connect_timeout": 2})
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ConfigurationInvalid, match="timeout"):
        checked(tmp_path, database_url=f"postgresql://user:hush-hush@127.0.0.1:{silent.getsockname()[1]}/name")


def test_a_server_that_is_down_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match=r"database_url.*refused") as refused:
        checked(tmp_path, database_url=f"postgresql://user:hush-hush@127.0.0.1:{free_port()}/name")
    assert "hush-hush" not in refused.value.message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("- a list", "mapping"),
        ("a: [", "no YAML"),
        ("applications: []", "serve_app:build"),
        ("applications: 5", "applications"),
        ("applications: [{name: other, import_path: 'other:build', route_prefix: /}]", "serve_app:build"),
    ],
)
def test_a_file_that_is_no_config_of_this_service_is_refused(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "serve_config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationInvalid, match=part) as refused:
        read_config(path)
    assert str(path) in refused.value.message


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match="cannot be read"):
        read_config(tmp_path / "serve_config.yaml")


@pytest.mark.parametrize("shared", [True, False])
def test_a_port_in_use_is_refused_also_where_its_user_would_share_it(tmp_path: Path, *, shared: bool) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = tmp_path / "serve_config.json"
        path.write_text(json.dumps(document(port, profile="cpu")))
        with pytest.raises(ConfigurationInvalid, match=f"port {port}.*another program listens"):
            check(read_config(path))


@pytest.fixture
def checkpoint(demo_checkpoint: "DemoCheckpoint", tmp_path: Path) -> "DemoCheckpoint":
    """Return a copy of a whole checkpoint, to be damaged."""
    copy = replace(demo_checkpoint, base=tmp_path / "base", transformers=tmp_path / "transformers")
    shutil.copytree(demo_checkpoint.base, copy.base)
    shutil.copytree(demo_checkpoint.transformers, copy.transformers)
    return copy


def refused_checkpoint(directory: Path, checkpoint: "DemoCheckpoint") -> str:
    with pytest.raises(ConfigurationInvalid) as refused:
        checked(directory, base_model=str(checkpoint.base), transformer_model=str(checkpoint.transformers))
    return refused.value.message


@pytest.mark.parametrize("content", [None, b"", b"[]", b"\xff"])
@pytest.mark.parametrize(
    "config", ["base/vae/config.json", "base/scheduler/scheduler_config.json", "transformers/transformer_2/config.json"]
)
def test_a_component_that_does_not_say_what_it_is_is_named(
    checkpoint: "DemoCheckpoint", tmp_path: Path, config: str, content: bytes | None
) -> None:
    path = tmp_path / config
    path.unlink() if content is None else path.write_bytes(content)
    assert str(path) in refused_checkpoint(tmp_path, checkpoint)


def test_a_whole_checkpoint_passes(checkpoint: "DemoCheckpoint", tmp_path: Path) -> None:
    checked(tmp_path, base_model=str(checkpoint.base), transformer_model=str(checkpoint.transformers))


@pytest.mark.parametrize("part", ["base/vae", "base/text_encoder", "transformers/transformer_2"])
@pytest.mark.parametrize("kept", [0, 5, -1])
def test_weights_that_are_cut_off_are_named(checkpoint: "DemoCheckpoint", tmp_path: Path, part: str, kept: int) -> None:
    weights = next((tmp_path / part).glob("*.safetensors"))
    os.truncate(weights, kept if kept >= 0 else weights.stat().st_size + kept)
    message = refused_checkpoint(tmp_path, checkpoint)
    assert str(weights) in message
    assert "cut off" in message


def test_a_part_that_is_missing_is_named(checkpoint: "DemoCheckpoint", tmp_path: Path) -> None:
    shutil.rmtree(checkpoint.base / "text_encoder")
    assert "text_encoder" in refused_checkpoint(tmp_path, checkpoint)


def test_a_file_that_an_index_names_and_that_is_missing_is_named(checkpoint: "DemoCheckpoint", tmp_path: Path) -> None:
    index = checkpoint.transformers / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "part-00002.safetensors"}}))
    assert "part-00002.safetensors is missing" in refused_checkpoint(tmp_path, checkpoint)
    index.write_text("not JSON")
    assert "no index of weights" in refused_checkpoint(tmp_path, checkpoint)


def test_of_a_traceback_a_person_sees_our_own_words() -> None:
    traceback = "Traceback:\n  File x\nserve_app.errors.ConfigurationInvalid: offload: no\n\nand more"
    assert told(traceback) == "offload: no"
    assert told("Traceback:\nValueError: some other thing\n") == "ValueError: some other thing"
    assert told("") == ""


@pytest.mark.parametrize(
    ("last", "final"),
    [
        ("serve_app.errors.ConfigurationInvalid: offload: no", True),
        ("KeyError: 'z_dim'", True),
        ("AssertionError", True),
        ("pydantic_core._pydantic_core.ValidationError: 1 validation error\n  a\n  b", True),
        ("torch.OutOfMemoryError: CUDA out of memory", False),
        ("ConnectionError: no route to the database", False),
        ("RuntimeError: the driver is being reset", False),
        ("OSError: [Errno 5] KeyError: quoted", False),
        ("The deployment waits for a GPU", False),
        ("", False),
    ],
)
def test_what_no_other_try_would_mend_ends_the_start_at_the_first(last: str, *, final: bool) -> None:
    assert (
        is_final(f"A replica failed to start with exception. Retrying 2 more time(s). Error:\n  File x\n{last}")
        is final
    )

"""`wan-lora download` against a real web server that speaks the Hub's routes."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from serve_app.cli import app
from serve_app.models.card import load_card
from serve_app.models.download import RepositoryFiles, checkpoint_files
from tests.fixtures.web_server import File, WebServer, web_server
from tests.lantern import CARD
from tests.serve_app.loras.sources.servers import HubStandIn, lora_bytes

WEIGHTS = "diffusion_pytorch_model.safetensors"
BASE = {
    "model_index.json": b"{}",
    "vae/config.json": b"{}",
    f"vae/{WEIGHTS}": lora_bytes(1),
    f"vae/{WEIGHTS}.bin": b"of no use",
    "README.md": b"of no use",
}
EXPERTS = {"transformer/config.json": b"{}", f"transformer/{WEIGHTS}": lora_bytes(2, floats=3_000_000)}
SMALL = tuple(name for name in {**BASE, **EXPERTS} if not name.endswith(".safetensors"))


@dataclass(frozen=True)
class Mirror:
    """A Hub with the model's repositories, and a cache of this test's own."""

    cdn: WebServer
    hubs: tuple[HubStandIn, ...]
    directory: Path

    def download(self) -> Result:
        args = ["download", str(self.directory / "card.yaml"), "--endpoint", self.hubs[0].server.url]
        return CliRunner().invoke(app, [*args, "--cache", str(self.directory / "cache")], env={"COLUMNS": "300"})

    def files(self) -> dict[str, bytes]:
        """Return what lies in the directories of the checkpoints, by name."""
        roots = (self.directory / "cache").glob("models--*/snapshots/*")
        return {
            str(path.relative_to(root)): path.read_bytes()
            for root in roots
            for path in root.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    """Yield base model and experts in two repositories."""
    card = yaml.safe_load(CARD.read_text()) | {"base_model": "me/base", "transformer_model": "me/experts"}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    with web_server() as server, web_server() as cdn:
        hubs = tuple(
            HubStandIn(server, cdn, files, repository=repository, small=SMALL)
            for repository, files in (("me/base", BASE), ("me/experts", EXPERTS))
        )
        for hub in hubs:
            hub.publish()
        yield Mirror(cdn, hubs, tmp_path)


def blob(content: bytes) -> str:
    return f"/{hashlib.sha256(content).hexdigest()}"


def test_each_part_comes_from_its_repository_without_what_nobody_loads(mirror: Mirror) -> None:
    result = mirror.download()
    assert result.exit_code == 0, result.output
    wanted = {name: content for name, content in BASE.items() if name.endswith((".json", ".safetensors"))}
    assert mirror.files() == wanted | EXPERTS
    base, experts = result.stdout.split()
    assert (Path(base, "model_index.json").is_file(), Path(experts, "transformer").is_dir()) == (True, True)


def test_what_is_there_is_not_fetched_again(mirror: Mirror) -> None:
    mirror.download()
    before = len(mirror.cdn.requests)
    assert mirror.download().exit_code == 0
    assert len(mirror.cdn.requests) == before


def test_a_download_that_breaks_off_continues_where_it_stopped(mirror: Mirror) -> None:
    weights = EXPERTS[f"transformer/{WEIGHTS}"]
    mirror.cdn.pages[blob(weights)] = File(weights, breaks=[11_000_000])
    result = mirror.download()
    assert result.exit_code == 0, result.output
    assert mirror.files()[f"transformer/{WEIGHTS}"] == weights
    # It is written to the disk in pieces of 10 MB.
    ranges = [request.headers.get("range") for request in mirror.cdn.requests if request.path.startswith(blob(weights))]
    assert ranges == [None, "bytes=10485760-"]


def test_a_damaged_file_is_reported_and_fetched_again(mirror: Mirror) -> None:
    weights = EXPERTS[f"transformer/{WEIGHTS}"]
    mirror.cdn.pages[blob(weights)] = File(bytes(len(weights)))
    result = mirror.download()
    assert result.exit_code == 1
    assert f"me/experts: {WEIGHTS} arrived damaged; run the command again" in result.output
    mirror.cdn.pages[blob(weights)] = File(weights)
    assert mirror.download().exit_code == 0
    assert mirror.files()[f"transformer/{WEIGHTS}"] == weights


def test_a_gated_repository_says_what_to_do(mirror: Mirror) -> None:
    mirror.hubs[1].gated = True
    result = mirror.download()
    assert result.exit_code == 1
    assert "me/experts: the Hub denies access; accept its conditions" in result.output


def test_an_unknown_card_is_reported(mirror: Mirror) -> None:
    result = CliRunner().invoke(app, ["download", "wan99"], env={"COLUMNS": "300"})
    assert result.exit_code == 1
    assert "'wan99' has no card" in result.output


@pytest.mark.parametrize(
    ("model", "repositories"),
    [
        ("wan22_14b_t2v", ["Wan-AI/Wan2.2-T2V-A14B-Diffusers", "ai-toolkit/Wan2.2-T2V-A14B-Diffusers-bf16"]),
        (
            "wan22_14b_i2v",
            ["ai-toolkit/umt5_xxl_encoder", "ai-toolkit/wan2.1-vae", "ai-toolkit/Wan2.2-I2V-A14B-Diffusers-bf16"],
        ),
        ("wan22_5b", ["Wan-AI/Wan2.2-TI2V-5B-Diffusers"]),
    ],
)
def test_the_repositories_of_each_card(model: str, repositories: list[str]) -> None:
    files = checkpoint_files(load_card(model))
    assert [wanted.repository for wanted in files] == repositories
    assert not any("*.bin" in pattern or pattern == "*" for wanted in files for pattern in wanted.patterns)


def test_a_pair_of_experts_is_two_folders_and_a_single_one_is_one() -> None:
    def folders(wanted: RepositoryFiles) -> set[str]:
        return {pattern.partition("/")[0] for pattern in wanted.patterns}

    *_, pair = checkpoint_files(load_card("wan22_14b_t2v"))
    (single,) = checkpoint_files(load_card("wan22_5b"))
    assert folders(pair) == {"transformer", "transformer_2"}
    assert "transformer" in folders(single)
    assert "transformer_2" not in folders(single)

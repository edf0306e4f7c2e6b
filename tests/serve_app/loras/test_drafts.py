"""A draft that could not be rendered stops the start, with the key and the file that are wrong."""

from pathlib import Path
from typing import Any

import pytest

from serve_app.drafts import Draft
from serve_app.errors import ConfigurationInvalid
from serve_app.loras.drafts import check_draft
from serve_app.loras.library import LoraLibrary
from serve_app.models.card import load_card
from serve_app.settings import Settings
from tests.loras.layouts import write
from tests.serve_app.loras.files import TINY, full, save

HIGH = {"path": "fast_high.safetensors", "transformer": "high"}


def check(root: Path, *loras: dict[str, Any], model: str = "wan22_14b_t2v") -> None:
    check_draft(Draft(loras=loras), load_card(model), LoraLibrary(root, TINY))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Hold a file for one expert, and one for both."""
    save(tmp_path / HIGH["path"], full())
    return tmp_path


def test_a_right_one_passes_and_a_remote_file_is_left_to_the_request(root: Path) -> None:
    check(root, HIGH)
    check(root, {"path": write("combined", root).path.name})
    check(root, HIGH, {"path": "hf://org/repo/fast_low.safetensors", "transformer": "low"})


@pytest.mark.parametrize(
    ("lora", "named"),
    [
        ({"path": "gone.safetensors", "transformer": "low"}, r"draft.loras\[1\].path: .*gone.safetensors"),
        ({"path": "../a.safetensors", "transformer": "low"}, r"draft.loras\[1\].path: .*contains '..'"),
        ({"path": "damaged.safetensors", "transformer": "low"}, r"draft.loras\[1\].path: .*damaged.safetensors"),
        ({"path": HIGH["path"]}, r"draft.loras\[1\].transformer: .*say high or low for 'fast_high.safetensors'"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(root: Path, lora: dict[str, str], named: str) -> None:
    (root / "damaged.safetensors").write_bytes(b"nothing")
    with pytest.raises(ConfigurationInvalid, match=named):
        check(root, HIGH, lora)


def test_a_model_with_one_expert_takes_a_draft_of_one_file(root: Path) -> None:
    check(root, {"path": HIGH["path"]}, model="wan22_5b")
    with pytest.raises(ConfigurationInvalid, match="wan22_5b has one expert; leave it out"):
        check(root, HIGH, model="wan22_5b")
    with pytest.raises(ConfigurationInvalid, match="for a model with two experts"):
        check(root, {"path": write("combined", root).path.name}, model="wan22_5b")


@pytest.mark.parametrize(
    ("draft", "named"),
    [
        ({"loras": []}, r"draft\.loras: "),
        ({"loras": [HIGH], "sample_steps": 0}, r"draft\.sample_steps: "),
        ({"loras": [HIGH], "guidance_scale": 4}, r"draft\.guidance_scale: Extra inputs"),
    ],
)
def test_a_wrong_value_is_named(draft: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=named):
        Settings.from_args({"draft": draft})


def test_a_value_beyond_the_limits_of_requests_is_named(root: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match=r"draft.loras\[0\].network_multiplier: 3 must be from -2 to 2"):
        check(root, {**HIGH, "network_multiplier": 3})


def test_the_demos_draft_is_in_the_package() -> None:
    demo = load_card("wan22_14b_t2v").demo_draft
    assert demo is not None
    folder = Path("deployments/wan/demo/trained/loras")
    assert all((folder / Path(lora.path).name).is_file() for lora in demo.loras)

"""`wan-lora inspect`, as a user runs it."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from serve_app.cli import app
from tests.loras.layouts import write
from tests.serve_app.loras.files import full, save

SOFTWARE = {"software": json.dumps({"name": "ai-toolkit", "version": "0.12.26"})}


@pytest.fixture
def experts(tmp_path: Path) -> Path:
    """Return a checkpoint's directory, as far as the command line looks into it."""
    return write_experts(tmp_path / "experts")


def write_experts(directory: Path) -> Path:
    """Return the config of tiny experts."""
    config = {
        "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 48, "text_dim": 32,
        "freq_dim": 256, "in_channels": 16, "out_channels": 16, "patch_size": [1, 2, 2], "cross_attn_norm": True,
    }  # fmt: skip
    path = directory / "transformer" / "config.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(config))
    return directory


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, ["inspect", *map(str, args)], env={"COLUMNS": "200"})


def test_a_pair_is_shown_side_by_side(tmp_path: Path, experts: Path) -> None:
    high = save(tmp_path / "my_high_noise.safetensors", full(8), SOFTWARE)
    low = save(tmp_path / "my_low_noise.safetensors", full(4), SOFTWARE)
    result = run(high, low, "--experts", experts)
    assert result.exit_code == 0, result.output
    for text in (high.name, low.name, "ai-toolkit", "20 lora", "AI Toolkit 0.12.26", "recipe preview (euler, shift 5)"):
        assert text in result.output
    assert "warning" not in result.output


def test_sides_that_are_mixed_up_are_warned_of_once_each(tmp_path: Path, experts: Path) -> None:
    high = save(tmp_path / "my_high_noise.safetensors", full())
    low = save(tmp_path / "my_low_noise.safetensors", full())
    result = run(low, high, "--experts", experts)
    assert result.output.count("warning:") == 2
    assert "mixed up" in result.output


def test_a_file_of_both_experts_is_enough(tmp_path: Path, experts: Path) -> None:
    result = run(write("combined", tmp_path).path, "--experts", experts, "--norms")
    assert result.exit_code == 0, result.output
    assert "both experts" in result.output
    assert "high: changes" in result.output
    assert "norm of" in result.output


def test_programs_get_json(tmp_path: Path, experts: Path) -> None:
    result = run(save(tmp_path / "a.safetensors", full(8)), "--experts", experts, "--json")
    (report,) = json.loads(result.output)["files"]
    assert report["parts"][0]["ranks"] == {"min": 8, "max": 8, "distinct": [8]}


def test_a_lora_for_another_model_is_an_error_that_says_what_it_looks_like(tmp_path: Path) -> None:
    result = run(save(tmp_path / "a.safetensors", full()))  # against the 14B model's sizes
    assert result.exit_code == 1
    assert "wrong shape" in result.output


@pytest.mark.parametrize("options", [[], ["--json"], ["--norms"]])
def test_values_that_a_service_refuses_are_an_error(options: list[str], tmp_path: Path, experts: Path) -> None:
    diverged = full() | {"diffusion_model.blocks.0.ffn.0.lora_A.weight": np.full((4, 24), np.nan)}
    result = run(save(tmp_path / "a.safetensors", diverged), "--experts", experts, *options)
    assert result.exit_code == 1
    assert "NaN" in result.output
    assert "blocks.0.ffn.0.lora_A.weight" in result.output


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    result = run(tmp_path / "absent.safetensors")
    assert result.exit_code == 1
    assert "absent.safetensors" in result.output

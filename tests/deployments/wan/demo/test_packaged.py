"""The demo that the package carries: complete, small, and served without building anything."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from deployments.wan.demo import TRAINED, packaged_demo
from serve_app.errors import LoraInvalid
from serve_app.loras.inspection import inspect_file
from serve_app.models.card import load_card

PAIRS = ("wan22_broken", "wan22_dawn", "wan22_demo", "wan22_draft")


def test_the_loras_lie_where_the_service_reads_them(tmp_path: Path) -> None:
    base, experts = packaged_demo(tmp_path / "unused", tmp_path)
    assert base == experts == str(TRAINED / "checkpoint")
    names = [f"{pair}_000000500_{side}_noise.safetensors" for pair in PAIRS for side in ("high", "low")]
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == names
    assert not (tmp_path / "unused").exists()


def test_another_demos_lora_of_the_same_name_is_replaced_and_a_right_one_kept(tmp_path: Path) -> None:
    packaged_demo(tmp_path, tmp_path)
    old, kept = sorted((tmp_path / "demo").iterdir())[:2]
    content, modified = old.read_bytes(), kept.stat().st_mtime_ns
    old.write_bytes(b"of an older release")
    packaged_demo(tmp_path, tmp_path)
    assert old.read_bytes() == content
    assert kept.stat().st_mtime_ns == modified


def test_it_is_small_and_comes_from_nowhere() -> None:
    files = [path for path in TRAINED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 25e6
    assert all("_name_or_path" not in json.loads(path.read_text()) for path in files if path.name == "config.json")


def test_the_pairs_look_like_ai_toolkits() -> None:
    for name, rank in zip(PAIRS[1:], (4, 8, 16), strict=True):
        with safe_open(TRAINED / "loras" / f"{name}_000000500_high_noise.safetensors", "pt") as file:
            assert len(list(file.keys())) == 6 * 20
            assert file.get_tensor("diffusion_model.blocks.5.ffn.0.lora_A.weight").shape == (rank, 192)
            metadata = file.metadata()
        assert "DEMO" in metadata["note"]
        assert json.loads(metadata["software"])["version"] == "0.12.26"
        assert metadata["ss_base_model_version"] == "wan_2.2_14b"


def test_both_sides_of_the_broken_pair_are_refused_with_the_reason() -> None:
    card = load_card("wan22_14b_t2v").of_checkpoint(str(TRAINED / "checkpoint"))
    for side, reason in (("high", "lora_B.weight"), ("low", "are not finite")):
        path = TRAINED / "loras" / f"wan22_broken_000000500_{side}_noise.safetensors"
        with pytest.raises(LoraInvalid, match=reason):
            inspect_file(path, str(path), card, strict=False, norms=True)

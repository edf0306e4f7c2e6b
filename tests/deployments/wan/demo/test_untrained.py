"""The demo checkpoint and its LoRA pair: reproducible, labelled, and worth looking at."""

import hashlib
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from deployments.wan.demo.untrained import DemoCheckpoint, ensure_demo_checkpoint, ensure_demo_loras
from serve_app.spec import LoraFile
from tests.deployments.wan.conftest import Render, difference


def _digests(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_bytes_come_out_every_time(
    demo_checkpoint: DemoCheckpoint, demo_loras: tuple[Path, Path], tmp_path: Path
) -> None:
    ensure_demo_checkpoint(tmp_path / "again")
    ensure_demo_loras(tmp_path / "loras")
    assert _digests(tmp_path / "again") == _digests(demo_checkpoint.base.parent)
    assert _digests(tmp_path / "loras") == _digests(demo_loras[0].parent.parent)


def test_two_at_once_build_one_and_leave_nothing_else(tmp_path: Path) -> None:
    threads = [threading.Thread(target=ensure_demo_checkpoint, args=(tmp_path / "demo",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert (tmp_path / "demo" / "base" / "model_index.json").is_file()


def test_what_is_there_is_kept(demo_checkpoint: DemoCheckpoint, demo_loras: tuple[Path, Path]) -> None:
    root = demo_checkpoint.base.parent
    times = {path: path.stat().st_mtime_ns for path in (*root.rglob("*"), *demo_loras)}
    assert ensure_demo_checkpoint(root) == demo_checkpoint
    assert ensure_demo_loras(demo_loras[0].parent.parent) == demo_loras
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_a_directory_with_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(FileExistsError, match="not a demo checkpoint"):
        ensure_demo_checkpoint(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_it_says_that_it_is_a_demo(demo_checkpoint: DemoCheckpoint, demo_loras: tuple[Path, Path]) -> None:
    assert "random weights" in (demo_checkpoint.base.parent / "DEMO.txt").read_text()
    for path in demo_loras:
        with safe_open(path, "pt") as file:
            assert "DEMO" in file.metadata()["note"]


def test_the_pair_looks_like_ai_toolkits(demo_loras: tuple[Path, Path]) -> None:
    assert [path.name for path in demo_loras] == [
        "wan22_demo_000000500_high_noise.safetensors",
        "wan22_demo_000000500_low_noise.safetensors",
    ]
    with safe_open(demo_loras[0], "pt") as file:
        metadata = file.metadata()
        keys = set(file.keys())
        down = file.get_tensor("diffusion_model.blocks.1.ffn.0.lora_A.weight")
    assert len(keys) == 2 * 20
    assert (down.shape[0], str(down.dtype)) == (16, "torch.bfloat16")
    assert json.loads(metadata["software"])["version"] == "0.12.26"
    assert json.loads(metadata["training_info"])["step"] == 500
    assert metadata["ss_base_model_version"] == "wan_2.2_14b"


@pytest.mark.parametrize("size", [64, 256])
def test_the_video_is_colourful_and_moves(render: Render, size: int) -> None:
    frames = render(width=size, height=size, num_frames=9, sample_steps=8).astype(float)
    assert frames.std((0, 1, 2)).min() > 20  # of each colour
    assert frames.std((1, 2)).mean() > 10  # within a frame
    assert np.abs(np.diff(frames, axis=0)).mean() > 3


def test_the_pair_acts_plainly_and_more_with_the_multiplier(render: Render, high: LoraFile, low: LoraFile) -> None:
    shape = {"num_frames": 9, "sample_steps": 8}
    base = render(**shape)
    effects = []
    for multiplier in (0.1, 0.3, 1.0):
        loras = [lora.model_copy(update={"multiplier": multiplier}) for lora in (high, low)]
        frames = render(*loras, **shape)
        assert 20 < frames.mean() < 235
        effects.append(difference(frames, base))
    assert effects == sorted(effects)
    assert effects[-1] > 20

"""`wan-lora doctor` on a machine without a GPU, and what it prints if there are some."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serve_app.cli import app, doctor
from serve_app.models.diagnosis import Diagnosis, Finding, Gpu, Placement, SizePlan


@pytest.mark.slow  # another process imports PyTorch
def test_without_a_gpu_it_says_so_and_what_a_gpu_would_give() -> None:
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 0
    found = Diagnosis.model_validate(json.loads(done.stdout))
    (gpu,) = found.findings
    assert (gpu.name, gpu.found) == ("CUDA GPU", False)
    assert "demo checkpoint" in gpu.missing
    assert [(size.size, size.tokens, size.step_s) for size in found.sizes] == [
        ("832x480x41", 17160, None),
        ("1024x1024x41", 45056, None),
        ("1280x720x81", 75600, None),
    ]
    assert found.placement is None


def test_a_card_that_is_not_there_is_a_wrong_option(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["doctor", "--model", str(tmp_path / "none.yaml")]).exit_code == 2


def test_it_prints_gpus_plan_sizes_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    doctor._print(
        Diagnosis(
            model="Wan 2.2 T2V A14B",
            torch="2.11.0",
            gpus=(Gpu(name="NVIDIA H200", capability=(9, 0), total=140 * 2**30, free=139 * 2**30),),
            host_free=500 * 2**30,
            flops=790e12,
            placement=Placement(offload="none", reason="all weights fit", originals="gpu"),
            sizes=(SizePlan(size="832x480x41", tokens=17160, step_s=1.85, draft_s=3.7, shared_by="one GPU"),),
            findings=(
                Finding(name="torch.compile", found=True, gives="speed", missing="cc"),
                Finding(name="FlashAttention 3", found=False, gives="more", missing="pip install it"),
            ),
        )
    )
    printed = capsys.readouterr().out
    for part in ("NVIDIA H200: 139 of 140 GiB free, capability 9.0", "auto takes none", "1.85", "3.70", "790 TFLOP/s"):
        assert part in printed
    assert "yes torch.compile: speed" in printed
    assert "no  FlashAttention 3: pip install it" in printed

"""Provenance in the metadata of LoRA files: trainer, version, step, base model, preview sampler."""

import json
from dataclasses import astuple
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.loras.formats.metadata import Provenance, preview_sampler, read_provenance
from serve_app.spec import Sampler

SERVED = "Wan 2.2 T2V A14B"


def software(version: Any = "0.9.4", name: str = "ai-toolkit") -> dict[str, str]:
    return {"software": json.dumps({"name": name, "repo": "https://github.com/ostris/ai-toolkit", "version": version})}


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.1.0", (Sampler.UNIPC, False)),
        ("0.7.25", (Sampler.UNIPC, False)),
        ("0.9.2", (Sampler.UNIPC, False)),
        ("0.9.3", (Sampler.EULER, True)),
        ("0.9.4.dev1", (Sampler.EULER, True)),
        ("0.9.4", (Sampler.EULER, False)),
        ("0.12.26", (Sampler.EULER, False)),
        ("nonsense", (Sampler.EULER, True)),
        ("", (Sampler.EULER, True)),
        (None, (Sampler.EULER, True)),
    ],
)
def test_the_scheduler_of_the_previews(version: str | None, expected: tuple[Sampler, bool]) -> None:
    assert preview_sampler(version) == expected


def test_the_version_of_ai_toolkit() -> None:
    assert read_provenance(software("0.12.26"), SERVED).trained_with == "0.12.26"
    assert read_provenance(software("0.12.26"), SERVED).trainer == "AI Toolkit 0.12.26"


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"software": "ai-toolkit 0.9.4"},
        {"software": "[]"},
        {"software": "{"},
        {"software": "[" * 99_999},
        {"software": " " * 200_000 + "{}"},
        software(name="another"),
        software(version=None),
        software(version=1.0),
        software(version="nonsense"),
        software(version="1" * 5000),
    ],
)
def test_malformed_claims_count_as_absent(metadata: dict[str, str]) -> None:
    assert read_provenance(metadata, SERVED).trained_with is None


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ({"ss_network_module": "networks.lora_wan"}, "musubi-tuner"),
        ({"ss_network_module": "networks.lora"}, "kohya"),
        ({"ss_network_module": "lycoris.kohya"}, "LyCORIS"),
        ({"lora_adapter_metadata": "{}"}, "diffusers"),
        (software("?"), "AI Toolkit"),
        ({}, None),
    ],
)
def test_trainers(metadata: dict[str, str], name: str | None) -> None:
    assert read_provenance(metadata, SERVED).trainer == name


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"training_info": '{"step": 1500, "epoch": 12}'}, (1500, 12)),
        ({"training_info": '{"step": "x", "epoch": -1}'}, (None, None)),
        ({"training_info": '{"step": true, "epoch": 1e3}'}, (None, None)),
        ({"ss_steps": "800", "ss_epoch": "4"}, (800, 4)),
        ({"ss_steps": "8" * 50, "ss_epoch": "²"}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_how_far_the_training_was(metadata: dict[str, str], expected: tuple[int | None, int | None]) -> None:
    found = read_provenance(metadata, SERVED)
    assert (found.step, found.epoch) == expected


@given(st.text(), st.text())
def test_no_metadata_raises(one: str, other: str) -> None:
    metadata = {"software": one, "training_info": other, "ss_steps": one, "ss_network_module": other}
    preview_sampler(read_provenance(metadata, SERVED).trained_with)
    preview_sampler(one)


@pytest.mark.parametrize(
    ("metadata", "base", "other"),
    [
        ({}, None, None),
        ({"ss_base_model_version": "wan_2.2_14b"}, "wan_2.2_14b", None),
        ({"ss_base_model_version": "wan_2.1"}, "wan_2.1", "Wan 2.1"),
        ({"modelspec.architecture": "wan2.1/lora"}, "wan2.1/lora", None),
        ({"ss_base_model_version": "", "modelspec.architecture": "wan2.2/lora"}, "wan2.2/lora", None),
    ],
)
def test_the_base_model(metadata: dict[str, str], base: str | None, other: str | None) -> None:
    found = read_provenance(metadata, SERVED)
    assert (found.base_model, found.other_base) == (base, other)


def test_names_of_the_training() -> None:
    assert read_provenance({"name": "b", "ss_output_name": "a"}, SERVED).names == ("a", "b")
    assert read_provenance({}, SERVED) == Provenance()


def test_metadata_that_only_fills_memory_is_not_kept() -> None:
    keys = ("software", "training_info", "ss_output_name", "name", "ss_base_model_version", "modelspec.architecture")
    found = read_provenance({**dict.fromkeys(keys, "x" * 10_000_000), "ss_tag_frequency": "x" * 10_000_000}, SERVED)
    assert sum(len(str(value)) for value in astuple(found)) < 5000

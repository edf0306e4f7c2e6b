"""LoRAs for other models are recognised by metadata, layer names and sizes."""

from collections.abc import Mapping

import pytest

from serve_app.models.card import load_card
from serve_app.models.foreign import (
    I2V_CHANNELS,
    WAN_OF_WIDTH,
    block_width,
    other_base_model,
    recognise_layers,
    takes_images,
)

A14B = load_card("wan22_14b_t2v").architecture


@pytest.mark.parametrize(
    ("metadata", "model"),
    [
        ({}, None),
        ({"ss_base_model_version": "wan_2.2_14b"}, None),
        ({"ss_base_model_version": "wan"}, None),
        ({"ss_base_model_version": "wan_2.1"}, "Wan 2.1"),
        ({"ss_base_model_version": "wan21"}, "Wan 2.1"),
        ({"ss_base_model_version": "wan_2.2_14b_i2v"}, "Wan I2V (image to video)"),
        ({"ss_base_model_version": "wan_2.2_5b"}, "Wan 2.2 TI2V 5B"),
        ({"modelspec.architecture": "wan_2.2_14b_i2v"}, "Wan I2V (image to video)"),
        ({"modelspec.architecture": "wan2.1/lora"}, None),  # musubi-tuner writes it for every Wan
        ({"modelspec.architecture": "wan2.2/lora"}, None),
    ],
)
def test_another_base_model_in_the_metadata(metadata: Mapping[str, str], model: str | None) -> None:
    version, spec = (metadata.get(key, "") for key in ("ss_base_model_version", "modelspec.architecture"))
    assert other_base_model(version, spec, "Wan 2.2 T2V A14B") == model


@pytest.mark.parametrize(
    ("served", "own", "other"),
    [
        ("Wan 2.2 TI2V 5B", "wan_2.2_5b", "wan_2.2_14b_i2v"),
        ("Wan 2.2 I2V A14B", "wan_2.2_14b_i2v", "wan_2.2_5b"),
        ("Wan 2.1 T2V 14B", "wan_2.1", "wan_vace"),
    ],
)
def test_the_served_model_itself_is_no_other(served: str, own: str, other: str) -> None:
    assert other_base_model(own, "", served) is None
    assert other_base_model(other, "", served) is not None


def test_the_names_of_the_served_model_are_not_another_s() -> None:
    names = [name for module in A14B.modules for name in (module.name, module.original)]
    assert recognise_layers(names) is None
    assert recognise_layers([name.replace(".", "_") for name in names]) is None


def test_the_first_model_that_is_known_is_named_with_its_layers_only() -> None:
    found = recognise_layers(["blocks.0.ffn.0", "img_emb.proj.1", "double_blocks.0.x", "double_blocks.1.x"])
    assert found is not None
    assert (found.model, found.names) == ("FLUX or HunyuanVideo", ("double_blocks.0.x", "double_blocks.1.x"))


def test_the_width_shows_at_attention_projections_alone() -> None:
    shown = {module.original for module in A14B.modules if block_width(module.original, module.shape) is not None}
    assert shown == {
        f"blocks.{number}.{attention}.{part}"
        for number in range(40)
        for attention in ("self_attn", "cross_attn")
        for part in "qkvo"
    }
    assert A14B.dim in WAN_OF_WIDTH
    assert block_width("blocks.0.attn1.to_q", ()) is None


def test_a_patch_embedding_for_images_is_foreign_to_a_model_that_takes_none() -> None:
    assert takes_images("patch_embedding", (4, I2V_CHANNELS, 1, 2, 2), A14B)
    assert not takes_images("patch_embedding", (4, A14B.in_channels, 1, 2, 2), A14B)
    assert not takes_images("patch_embedding", (4, I2V_CHANNELS), A14B)
    assert not takes_images("proj_out", (4, I2V_CHANNELS, 1, 2, 2), A14B)

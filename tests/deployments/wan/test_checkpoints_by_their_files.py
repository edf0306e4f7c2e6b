"""The weights that a config asks for, as they are known without PyTorch, are those of the real classes."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan
from transformers import UMT5Config, UMT5EncoderModel

from deployments.wan.demo.untrained import ensure_demo_checkpoint
from deployments.wan.demo.untrained.models import I2V, T2V, TI2V, DemoModel
from serve_app.models.card import load_card
from serve_app.models.checkpoints.autoencoder import autoencoder_weights
from serve_app.models.checkpoints.configs import AutoencoderConfig, TextEncoderConfig
from serve_app.models.checkpoints.folder import check_base, check_experts, check_text_width
from serve_app.models.checkpoints.text_encoder import EMBEDDING, text_encoder_weights

# As published for Wan 2.2 TI2V 5B; that of Wan 2.1, which the others have, is made of the class's defaults.
_WAN_22 = {**TI2V.vae, "base_dim": 160, "decoder_base_dim": 256, "num_res_blocks": 2}
_SMALL = {"vocab_size": 9, "d_model": 8, "d_kv": 4, "d_ff": 6, "num_layers": 3, "num_heads": 2}


def shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(
    "config", [{}, T2V.vae, TI2V.vae, _WAN_22, {"dim_mult": [2, 4], "temperal_downsample": [True]}], ids=range(5)
)
def test_weights_of_an_autoencoder(config: Mapping[str, Any]) -> None:
    with torch.device("meta"):
        real = shapes(AutoencoderKLWan(**config))
    assert autoencoder_weights(AutoencoderConfig.model_validate({**config, "_class_name": "AutoencoderKLWan"})) == real


@pytest.mark.parametrize("form", ["gated-gelu", "relu"])
def test_weights_of_a_text_encoder(form: str) -> None:
    config = UMT5Config(**_SMALL, feed_forward_proj=form)
    with torch.device("meta"):
        real = shapes(UMT5EncoderModel(config))
    assert real.pop(EMBEDDING[1]) == real[EMBEDDING[0]]
    assert text_encoder_weights(TextEncoderConfig.model_validate(config.to_dict())) == real


@pytest.mark.parametrize(("demo", "card"), [(T2V, "wan22_14b_t2v"), (I2V, "wan22_14b_i2v"), (TI2V, "wan22_5b")])
def test_a_checkpoint_that_the_libraries_saved_passes(
    demo: DemoModel, card: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = ensure_demo_checkpoint(tmp_path_factory.mktemp("made") / "demo", demo)
    check_base("base_model", made.base, load_card(card))
    check_experts("transformer_model", made.transformers, load_card(card))
    check_text_width("transformer_model", made.base, made.transformers, load_card(card))

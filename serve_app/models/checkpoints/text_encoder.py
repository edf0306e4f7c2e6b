"""Text encoder (UMT5): names and shapes of all its weights, as its config.json determines them.

Source: transformers 5.23, models/umt5/modeling_umt5.py. Every block of UMT5 has a table of relative positions.
"""

from collections.abc import Iterator

from serve_app.models.architecture import Shape
from serve_app.models.checkpoints.configs import TextEncoderConfig

# Two names of one tensor; a file has one of them, or both.
EMBEDDING = ("shared.weight", "encoder.embed_tokens.weight")


def text_encoder_weights(config: TextEncoderConfig) -> dict[str, Shape]:
    """Return the shape of every weight of a `UMT5EncoderModel` by its name; of the embedding under its first name."""
    blocks = {
        name: shape for number in range(config.num_layers) for name, shape in _block(config, f"encoder.block.{number}")
    }
    norm = {"encoder.final_layer_norm.weight": (config.d_model,)}
    return {EMBEDDING[0]: (config.vocab_size, config.d_model), **blocks, **norm}


def _block(config: TextEncoderConfig, block: str) -> Iterator[tuple[str, Shape]]:
    width, inner = config.d_model, config.num_heads * config.d_kv
    attention, feed_forward = f"{block}.layer.0.SelfAttention", f"{block}.layer.1.DenseReluDense"
    for name in ("q", "k", "v"):
        yield f"{attention}.{name}.weight", (inner, width)
    yield f"{attention}.o.weight", (width, inner)
    yield f"{attention}.relative_attention_bias.weight", (config.relative_attention_num_buckets, config.num_heads)
    for name in ("wi_0", "wi_1") if config.is_gated else ("wi",):
        yield f"{feed_forward}.{name}.weight", (config.d_ff, width)
    yield f"{feed_forward}.wo.weight", (width, config.d_ff)
    for layer in (0, 1):
        yield f"{block}.layer.{layer}.layer_norm.weight", (width,)

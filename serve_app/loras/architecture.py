"""The linear layers of a Wan expert that a LoRA can change, and their shapes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

ATTENTIONS = ("self_attn", "cross_attn")
PROJECTIONS = ("q", "k", "v", "o")


@dataclass(frozen=True, slots=True)
class WanArchitecture:
    """Sizes of one `WanTransformer3DModel`. T2V A14B: 40 layers, dim 5120 (40 heads x 128), ffn_dim 13824."""

    num_layers: int
    dim: int
    ffn_dim: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """From the config.json of a diffusers `WanTransformer3DModel`; KeyError names what it lacks."""
        return cls(
            num_layers=config["num_layers"],
            dim=config["num_attention_heads"] * config["attention_head_dim"],
            ffn_dim=config["ffn_dim"],
        )

    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(out, in) of each linear layer, under the original Wan names that LoRA files use.

        The text is projected to `dim` before the blocks, so `cross_attn.k` and `.v` are square as well.
        Source: diffusers 0.42.1, models/transformers/transformer_wan.py.
        """
        block = {f"{attention}.{part}": (self.dim, self.dim) for attention in ATTENTIONS for part in PROJECTIONS}
        block |= {"ffn.0": (self.ffn_dim, self.dim), "ffn.2": (self.dim, self.ffn_dim)}
        return {
            f"blocks.{number}.{module}": shape for number in range(self.num_layers) for module, shape in block.items()
        }

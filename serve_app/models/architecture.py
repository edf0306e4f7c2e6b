"""Architecture of a Wan expert: shapes and names of all parameters that a LoRA can change, parameter counts, FLOPs.

Sources: diffusers 0.42.1, models/transformers/transformer_wan.py for names and shapes, and the rename table of
`convert_wan_transformer_to_diffusers` in loaders/single_file_utils.py for the original names. Mind the norms of a
block: what Wan calls norm3 (the affine one, before cross-attention) is norm2 in diffusers. The other two norms have no
parameters in either, so that both names can only mean that one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import Any, Self

Shape = tuple[int, ...]

UNTITLED = "this model"

_ATTENTIONS = (("attn1", "self_attn"), ("attn2", "cross_attn"))
_PROJECTIONS = (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "o"))
_SMALLEST_LOW_RANK = 2  # dimensions that a weight needs to be a product of two


@dataclass(frozen=True, slots=True)
class Module:
    """A layer, or a table that belongs to none. `shape` is of `parameter`; a bias has the shape [shape[0]].

    Two dimensions are a linear layer's [out, in], five a convolution's [out, in, t, h, w], one a norm's, and three a
    table's.
    """

    name: str  # in diffusers
    original: str  # in Wan's own code
    shape: Shape
    parameter: str  # of `shape`, as `named_parameters()` has it
    bias: str | None  # likewise

    @property
    def is_linear(self) -> bool:
        """Return whether it is a linear layer."""
        return len(self.shape) == _SMALLEST_LOW_RANK

    @property
    def takes_low_rank(self) -> bool:
        """Return whether up @ down can change its weight: of a linear layer or a convolution."""
        return self.bias is not None and len(self.shape) >= _SMALLEST_LOW_RANK


@dataclass(frozen=True, slots=True)
class WanArchitecture:
    """Sizes of one text-to-video `WanTransformer3DModel`, as its config.json has them, and the model's title."""

    num_layers: int
    num_attention_heads: int
    attention_head_dim: int
    ffn_dim: int
    text_dim: int
    freq_dim: int
    in_channels: int
    out_channels: int
    patch_size: tuple[int, int, int]  # frames, rows, columns of latents in one token
    cross_attn_norm: bool
    title: str = field(default=UNTITLED, compare=False)  # what refusals call the model

    @classmethod
    def from_config(cls, config: Mapping[str, Any], title: str = UNTITLED) -> Self:
        """Build it from the config.json of a diffusers `WanTransformer3DModel`. Raise KeyError for a missing entry."""
        frames, rows, columns = config["patch_size"]
        return cls(
            num_layers=config["num_layers"],
            num_attention_heads=config["num_attention_heads"],
            attention_head_dim=config["attention_head_dim"],
            ffn_dim=config["ffn_dim"],
            text_dim=config["text_dim"],
            freq_dim=config["freq_dim"],
            in_channels=config["in_channels"],
            out_channels=config["out_channels"],
            patch_size=(frames, rows, columns),
            cross_attn_norm=config["cross_attn_norm"],
            title=title,
        )

    @property
    def dim(self) -> int:
        """Return the width of the blocks. T2V A14B: 5120."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def linear_parameters(self) -> int:
        """Return how many parameters the linear layers have: 8 d^2 + 2 d f a block, and the text and time embeddings.

        T2V A14B: 14.3e9.
        """
        blocks = self.num_layers * (8 * self.dim**2 + 2 * self.dim * self.ffn_dim)
        text = self.text_dim * self.dim + self.dim**2
        time = self.freq_dim * self.dim + 7 * self.dim**2
        return blocks + text + time

    def forward_flops(self, tokens: float) -> float:
        """Return the FLOPs of one forward pass over `tokens`.

        That is 2 for each parameter of a linear layer and token, and 4 x tokens^2 x width for the attention of each
        block. T2V A14B: 2 x 14.3e9 x L + 40 x 4 x L^2 x 5120, so 0.73 PFLOP at 832x480x41 (17,160 tokens).
        """
        return 2 * self.linear_parameters * tokens + 4 * self.num_layers * tokens**2 * self.dim

    @property
    def modules(self) -> tuple[Module, ...]:
        """Return all modules with parameters, in the order of the forward pass."""
        return _modules(self)

    def parameters(self) -> dict[str, Shape]:
        """Return the shape of every parameter by its name in diffusers."""
        found = {}
        for module in self.modules:
            found[module.parameter] = module.shape
            if module.bias:
                found[module.bias] = module.shape[:1]
        return found


@lru_cache(maxsize=4)
def _modules(model: WanArchitecture) -> tuple[Module, ...]:
    """Return the modules of an architecture. Cached, because building the list takes a millisecond."""
    blocks = (module for number in range(model.num_layers) for module in _block(model, number))
    return (*_before_blocks(model), *blocks, *_after_blocks(model))


def _layer(name: str, original: str, *shape: int) -> Module:
    return Module(name, original, shape, f"{name}.weight", f"{name}.bias")


def _unbiased(name: str, original: str, *shape: int) -> Module:
    return Module(name, original, shape, f"{name}.weight", None)


def _table(name: str, original: str, *shape: int) -> Module:
    return Module(name, original, shape, name, None)


def _before_blocks(model: WanArchitecture) -> Iterator[Module]:
    dim, time, text = model.dim, "condition_embedder.time_embedder", "condition_embedder.text_embedder"
    yield _layer("patch_embedding", "patch_embedding", dim, model.in_channels, *model.patch_size)
    yield _layer(f"{time}.linear_1", "time_embedding.0", dim, model.freq_dim)
    yield _layer(f"{time}.linear_2", "time_embedding.2", dim, dim)
    yield _layer("condition_embedder.time_proj", "time_projection.1", 6 * dim, dim)
    yield _layer(f"{text}.linear_1", "text_embedding.0", dim, model.text_dim)
    yield _layer(f"{text}.linear_2", "text_embedding.2", dim, dim)


def _block(model: WanArchitecture, number: int) -> Iterator[Module]:
    dim, block = model.dim, f"blocks.{number}"
    yield _table(f"{block}.scale_shift_table", f"{block}.modulation", 1, 6, dim)
    for name, original in _ATTENTIONS:
        for part, original_part in _PROJECTIONS:
            yield _layer(f"{block}.{name}.{part}", f"{block}.{original}.{original_part}", dim, dim)
        for norm in ("norm_q", "norm_k"):
            yield _unbiased(f"{block}.{name}.{norm}", f"{block}.{original}.{norm}", dim)
    if model.cross_attn_norm:
        yield _layer(f"{block}.norm2", f"{block}.norm3", dim)
    yield _layer(f"{block}.ffn.net.0.proj", f"{block}.ffn.0", model.ffn_dim, dim)
    yield _layer(f"{block}.ffn.net.2", f"{block}.ffn.2", dim, model.ffn_dim)


def _after_blocks(model: WanArchitecture) -> Iterator[Module]:
    yield _table("scale_shift_table", "head.modulation", 1, 2, model.dim)
    yield _layer("proj_out", "head.head", model.out_channels * prod(model.patch_size), model.dim)

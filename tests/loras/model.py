"""The parameters of a tiny Wan 2.2 expert, listed by hand, for which `tests.loras.layouts` writes its files."""

from collections.abc import Iterator
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Module:
    """A module with a weight, under its two names."""

    diffusers: str
    original: str
    shape: Shape  # of its weight
    bias: bool = True

    def parameter(self, leaf: str = "weight") -> str:
        """As `named_parameters()` of diffusers' model names it."""
        return f"{self.diffusers}.{leaf}"


@dataclass(frozen=True)
class Sizes:
    """Of one expert; the defaults are those of the smallest checkpoint that the tests use."""

    dim: int = 24
    ffn: int = 48
    text: int = 32
    freq: int = 256
    layers: int = 2
    channels: int = 16

    def attention(self) -> list[Module]:
        """Return the eight projections of every block."""
        return [
            Module(
                f"blocks.{block}.{theirs}.{'to_out.0' if part == 'o' else f'to_{part}'}",
                f"blocks.{block}.{ours}.{part}",
                (self.dim, self.dim),
            )
            for block in range(self.layers)
            for theirs, ours in (("attn1", "self_attn"), ("attn2", "cross_attn"))
            for part in "qkvo"
        ]

    def feed_forward(self) -> list[Module]:
        """Return both halves of every block."""
        return [
            module
            for block in range(self.layers)
            for module in (
                Module(f"blocks.{block}.ffn.net.0.proj", f"blocks.{block}.ffn.0", (self.ffn, self.dim)),
                Module(f"blocks.{block}.ffn.net.2", f"blocks.{block}.ffn.2", (self.dim, self.ffn)),
            )
        ]

    def linears(self) -> list[Module]:
        """Return what a trainer targets by default: 10 a block."""
        return self.attention() + self.feed_forward()

    def outer_linears(self) -> list[Module]:
        """Return those before and after the blocks."""
        time, text = "condition_embedder.time_embedder", "condition_embedder.text_embedder"
        return [
            Module(f"{time}.linear_1", "time_embedding.0", (self.dim, self.freq)),
            Module(f"{time}.linear_2", "time_embedding.2", (self.dim, self.dim)),
            Module("condition_embedder.time_proj", "time_projection.1", (6 * self.dim, self.dim)),
            Module(f"{text}.linear_1", "text_embedding.0", (self.dim, self.text)),
            Module(f"{text}.linear_2", "text_embedding.2", (self.dim, self.dim)),
            Module("proj_out", "head.head", (4 * self.channels, self.dim)),
        ]

    def norms(self) -> list[Module]:
        """Return those with parameters. What is norm3 in the original is norm2 in diffusers."""
        return [module for block in range(self.layers) for module in self._block_norms(block)]

    def _block_norms(self, block: int) -> Iterator[Module]:
        yield Module(f"blocks.{block}.norm2", f"blocks.{block}.norm3", (self.dim,))
        for theirs, ours in (("attn1", "self_attn"), ("attn2", "cross_attn")):
            for leaf in ("norm_q", "norm_k"):
                yield Module(
                    f"blocks.{block}.{theirs}.{leaf}", f"blocks.{block}.{ours}.{leaf}", (self.dim,), bias=False
                )

    def patch(self) -> Module:
        """Return the convolution that makes tokens of latents."""
        return Module("patch_embedding", "patch_embedding", (self.dim, self.channels, 1, 2, 2))

    def tables(self) -> list[Module]:
        """Return parameters that belong to no layer: their names are the parameters' own."""
        blocks = [
            Module(f"blocks.{block}.scale_shift_table", f"blocks.{block}.modulation", (1, 6, self.dim))
            for block in range(self.layers)
        ]
        return [*blocks, Module("scale_shift_table", "head.modulation", (1, 2, self.dim))]

    def shapes(self) -> dict[str, Shape]:
        """Of every parameter of the expert, by its name in diffusers."""
        layers = [*self.linears(), *self.outer_linears(), *self.norms(), self.patch()]
        found = {layer.parameter(): layer.shape for layer in layers}
        found |= {layer.parameter("bias"): layer.shape[:1] for layer in layers if layer.bias}
        return found | {table.diffusers: table.shape for table in self.tables()}


TINY = Sizes()
DEMO = Sizes(dim=96, ffn=192)

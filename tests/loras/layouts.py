"""LoRA files in every layout that the service reads, each with what it must change.

    written = write("kohya-alpha", tmp_path, sizes=TINY, seed=3)
    written.path                                the file
    written.high["proj_out.weight"](w0, s)      the parameter in float64, for the pristine one and a multiplier

`high` and `low` are the formulas for each expert; they differ only where the file is a combined one. Parameters that
they do not name stay as they are. No formula comes from the code under test.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.loras.model import TINY, Module, Sizes
from tests.loras.writer import Formula, Writer

AI_TOOLKIT = {"format": "pt", "ss_base_model_version": "wan_2.2_14b"}
DOWN_UP = ("lora_down.weight", "lora_up.weight")


@dataclass(frozen=True)
class Written:
    """A file, and the formulas for each expert."""

    path: Path
    high: Mapping[str, Formula]
    low: Mapping[str, Formula]


@dataclass(frozen=True)
class _Layout:
    fill: Callable[[Writer, Sizes], None]
    fill_low: Callable[[Writer, Sizes], None] | None = None  # of a combined file
    metadata: Mapping[str, str] = field(default_factory=dict)  # beside that of AI Toolkit


def write(name: str, folder: Path, *, sizes: Sizes = TINY, seed: int = 0, dtype: str = "F32") -> Written:
    """Return the layout called `name` (a key of `LAYOUTS`) as `folder/<name>.safetensors`, with random weights."""
    layout = LAYOUTS[name]
    writer = Writer(seed, dtype)
    layout.fill(writer, sizes)
    high = low = writer.expected()
    if layout.fill_low is not None:
        second = Writer(seed + 1, dtype)
        layout.fill_low(second, sizes)
        low = second.expected()
        writer.merge(second)
    return Written(writer.save(folder / f"{name}.safetensors", {**AI_TOOLKIT, **layout.metadata}), high, low)


def original(prefix: str) -> Callable[[Module], str]:
    """Return the names of the original Wan code behind a prefix."""
    return lambda module: prefix + module.original


def diffusers(prefix: str) -> Callable[[Module], str]:
    """Return the names of diffusers behind a prefix."""
    return lambda module: prefix + module.diffusers


def underscored(stem: Callable[[Module], str], prefix: str) -> Callable[[Module], str]:
    """Return a prefix, and a name with underscores for dots."""
    return lambda module: prefix + stem(module).replace(".", "_")


KOHYA = underscored(original(""), "lora_unet_")
LYCORIS = underscored(diffusers(""), "lycoris_")
TOOLKIT = original("diffusion_model.")


def _full(stem: Callable[[Module], str], **options: object) -> _Layout:
    def fill(writer: Writer, sizes: Sizes) -> None:
        for module in sizes.linears():
            writer.lora(module, stem(module), **options)  # type: ignore[arg-type]

    return _Layout(fill)


def _attention_only(writer: Writer, sizes: Sizes) -> None:
    for module in sizes.attention():
        writer.lora(module, KOHYA(module), halves=DOWN_UP)


def _every_linear(stem: Callable[[Module], str]) -> _Layout:
    def fill(writer: Writer, sizes: Sizes) -> None:
        for module in sizes.linears() + sizes.outer_linears():
            writer.lora(module, stem(module))

    return _Layout(fill)


def _lokr(stem: Callable[[Module], str], low: tuple[bool, bool], alpha: float | None) -> _Layout:
    def fill(writer: Writer, sizes: Sizes) -> None:
        for module in sizes.linears():
            writer.lokr(module, stem(module), split=(4, 8), low=low, alpha=alpha)

    return _Layout(fill)


def _dora(
    stem: Callable[[Module], str], ending: str, shape: str, halves: tuple[str, str], alpha: float | None = None
) -> _Layout:
    def fill(writer: Writer, sizes: Sizes) -> None:
        for module in sizes.linears():
            out, wide = module.shape
            dimensions = {"[out]": (out,), "[out, 1]": (out, 1), "[1, in]": (1, wide)}[shape]
            writer.lora(module, stem(module), halves=halves, alpha=alpha, magnitude=(ending, dimensions))

    return _Layout(fill)


def _full_rank(writer: Writer, sizes: Sizes) -> None:
    """AI Toolkit's: the attention's names are original, all others diffusers'."""
    for module in sizes.linears():
        writer.difference(module.parameter(), module.shape, f"{TOOLKIT(module)}.diff")
    for module in [*sizes.outer_linears(), *sizes.norms()]:
        writer.difference(module.parameter(), module.shape, f"diffusion_model.{module.diffusers}.diff")


def _extracted(writer: Writer, sizes: Sizes) -> None:
    """Write what extraction tools do, such as for distilled models: low rank where it pays, else differences."""
    for module in sizes.linears():
        writer.lora(module, TOOLKIT(module), halves=DOWN_UP)
        writer.difference(module.parameter("bias"), module.shape[:1], f"{TOOLKIT(module)}.diff_b")
    for module in [*sizes.norms(), sizes.patch()]:
        writer.difference(module.parameter(), module.shape, f"{TOOLKIT(module)}.diff")
        if module.bias:
            writer.difference(module.parameter("bias"), module.shape[:1], f"{TOOLKIT(module)}.diff_b")
    for table in sizes.tables():
        writer.difference(table.diffusers, table.shape, f"{TOOLKIT(table)}.diff")
    head = sizes.outer_linears()[-1]
    writer.lora(head, TOOLKIT(head), halves=DOWN_UP)
    writer.difference(head.parameter(), head.shape, f"{TOOLKIT(head)}.diff")  # and both on one weight


def _lycoris_norms(writer: Writer, sizes: Sizes) -> None:
    for module in sizes.norms():
        writer.difference(module.parameter(), module.shape, f"{LYCORIS(module)}.w_norm")
        if module.bias:
            writer.difference(module.parameter("bias"), module.shape[:1], f"{LYCORIS(module)}.b_norm")


def _patch(stem: str, halves: tuple[str, str], alpha: float | None) -> _Layout:
    return _Layout(lambda writer, sizes: writer.lora(sizes.patch(), stem, halves=halves, alpha=alpha))


def _patch_difference(writer: Writer, sizes: Sizes) -> None:
    patch = sizes.patch()
    writer.difference(patch.parameter(), patch.shape, f"{TOOLKIT(patch)}.diff")
    writer.difference(patch.parameter("bias"), patch.shape[:1], f"{TOOLKIT(patch)}.diff_b")


def _mixed_ranks(writer: Writer, sizes: Sizes) -> None:
    for number, module in enumerate(sizes.linears()[3:], 1):
        alpha = float(number) if number % 2 else None
        writer.lora(
            module,
            TOOLKIT(module),
            rank=number,
            halves=DOWN_UP if number % 3 else ("lora_A.weight", "lora_B.weight"),
            alpha=alpha,
        )


def _distilled(writer: Writer, sizes: Sizes) -> None:
    """As distilled LoRAs are exported: `diff_m` is the difference of the modulation table, named by its owner."""
    for module in sizes.linears():
        writer.lora(module, TOOLKIT(module), halves=DOWN_UP)
    for table in sizes.tables():
        owner = table.original.removesuffix(".modulation")
        writer.difference(table.diffusers, table.shape, f"diffusion_model.{owner}.diff_m")


def _combined(high: Callable[[Module], str], low: Callable[[Module], str]) -> _Layout:
    return _Layout(_full(high).fill, _full(low).fill)


LAYOUTS: Mapping[str, _Layout] = {
    "ai-toolkit": _full(TOOLKIT),
    "ai-toolkit-alpha": _full(TOOLKIT, alpha=2.0),
    "ai-toolkit-every-linear": _every_linear(diffusers("diffusion_model.")),
    "checkpoint-prefix": _full(original("model.diffusion_model."), alpha=8.0, alpha_shape=(1,)),
    "kohya-alpha": _full(KOHYA, halves=DOWN_UP, alpha=1.0),
    "kohya-attention": _Layout(_attention_only),
    "diffusers": _every_linear(diffusers("transformer.")),
    "diffusers-down-up": _full(diffusers("transformer."), halves=("lora.down.weight", "lora.up.weight")),
    "diffusers-original-names": _full(original("transformer.")),
    "peft": _full(diffusers("base_model.model.")),
    "peft-default": _full(
        original("base_model.model."), halves=("lora_A.default.weight", "lora_B.default.weight"), alpha=None
    ),
    "bare": _full(original("")),
    "bare-diffusers": _every_linear(diffusers("")),
    "lokr": _lokr(LYCORIS, (False, False), 7.0),
    "lokr-w2": _lokr(LYCORIS, (False, True), 3.0),
    "lokr-both": _lokr(TOOLKIT, (True, True), 1.0),
    "lokr-without-alpha": _lokr(KOHYA, (True, False), None),
    "dora-ai-toolkit": _dora(TOOLKIT, "magnitude", "[out]", ("lora_A.weight", "lora_B.weight")),
    "dora-kohya": _dora(KOHYA, "dora_scale", "[out, 1]", DOWN_UP, 2.0),
    "dora-kohya-columns": _dora(KOHYA, "dora_scale", "[1, in]", DOWN_UP, 2.0),
    "dora-peft": _dora(
        diffusers("base_model.model."), "lora_magnitude_vector", "[out]", ("lora_A.weight", "lora_B.weight")
    ),
    "dora-peft-default": _dora(
        diffusers("base_model.model."),
        "lora_magnitude_vector.default.weight",
        "[out]",
        ("lora_A.default.weight", "lora_B.default.weight"),
    ),
    "full-rank": _Layout(_full_rank),
    "extracted": _Layout(_extracted),
    "lycoris-norms": _Layout(_lycoris_norms),
    "patch-lora": _patch("diffusion_model.patch_embedding", ("lora_A.weight", "lora_B.weight"), None),
    "patch-kohya": _patch("lora_unet_patch_embedding", DOWN_UP, 1.0),
    "patch-difference": _Layout(_patch_difference),
    "alpha-int64": _full(TOOLKIT, alpha=2.0, alpha_dtype="I64"),
    "alpha-int32-of-one": _full(KOHYA, halves=DOWN_UP, alpha=8.0, alpha_dtype="I32", alpha_shape=(1,)),
    "alpha-uint8": _full(KOHYA, halves=DOWN_UP, alpha=1.0, alpha_dtype="U8"),
    "alpha-float64": _full(TOOLKIT, alpha=0.1, alpha_dtype="F64"),
    "alpha-in-metadata": replace(_full(TOOLKIT, alpha_elsewhere=1.0), metadata={"lora_alpha": "1"}),
    "alpha-in-adapter-config": replace(
        _full(original("base_model.model."), alpha_elsewhere=32.0),
        metadata={"adapter_config": json.dumps({"r": 4, "lora_alpha": 32})},
    ),
    "distilled": _Layout(_distilled),
    "wan-fun": _full(underscored(original(""), "lora_unet__"), halves=DOWN_UP, alpha=2.0),
    "diffsynth": _full(original("pipe.dit."), halves=("lora_A.default.weight", "lora_B.default.weight")),
    "compiled": _full(original("module._orig_mod.model.diffusion_model.")),
    "mixed-ranks": _Layout(_mixed_ranks),
    "combined": _combined(original("diffusion_model.transformer_1."), original("diffusion_model.transformer_2.")),
    "combined-wan": _combined(original("high_noise_model."), original("low_noise_model.")),
    "combined-diffsynth": _combined(original("pipe.dit."), original("pipe.dit2.")),
    "combined-kohya": _combined(
        underscored(original(""), "lora_unet_transformer_1_"), underscored(original(""), "lora_unet_transformer_2_")
    ),
    "combined-diffusers": _combined(diffusers("transformer."), diffusers("transformer_2.")),
}

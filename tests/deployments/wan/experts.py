"""The smallest experts, the LoRA state of a pipeline with them, and a look at all of their weights."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel

from deployments.wan.loading import COMPONENTS, expert_files
from deployments.wan.loras.state import LoraState
from deployments.wan.memory.offload import Placement
from deployments.wan.memory.planner import MemoryPlan
from serve_app.settings import OffloadMode, PristineMode
from serve_app.spec import PAIR, Expert, LoraFile, Recipe, RenderSpec
from tests.deployments.wan.held import held
from tests.loras.model import TINY

CPU = torch.device("cpu")

Weights = Mapping[str, torch.Tensor]


def save_experts(folder: Path, **options: Any) -> Path:
    """Return both experts of a checkpoint with random weights of `tests.loras.model.TINY`, each with its own."""
    for seed, name in enumerate(COMPONENTS[side] for side in PAIR):
        expert = WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=TINY.dim // 2,
            ffn_dim=TINY.ffn,
            text_dim=TINY.text,
            freq_dim=TINY.freq,
            num_layers=TINY.layers,
            in_channels=TINY.channels,
            out_channels=TINY.channels,
        )
        generator = torch.Generator().manual_seed(seed)
        for value in expert.parameters():
            value.data = torch.randn(value.shape, generator=generator) * 0.2
        expert.save_pretrained(folder / name, **options)
    return folder


def memory_plan(
    originals: PristineMode,
    lora_bytes: int = 2**30,
    offload: OffloadMode = OffloadMode.NONE,
    *,
    on_gpu: bool = False,
) -> MemoryPlan:
    """Return a plan with everything where the test wants it."""
    return MemoryPlan(
        offload=offload,
        reason="",
        originals=originals,
        lora_host_bytes=lora_bytes,
        lora_gpu_bytes=2**30 if on_gpu else 0,
    )


class Experts:
    """A pipeline of the two experts alone, and its LoRA state."""

    def __init__(
        self,
        folder: Path,
        dtype: torch.dtype = torch.float32,
        *,
        pristine: PristineMode = PristineMode.HOST,
        lora_memory_bytes: int = 2**30,
        offload: OffloadMode = OffloadMode.NONE,
        device: torch.device = CPU,
    ) -> None:
        parts = {
            name: WanTransformer3DModel.from_pretrained(folder, subfolder=name, dtype=dtype)
            for name in (COMPONENTS[side] for side in PAIR)
        }
        scheduler = UniPCMultistepScheduler()
        self.pipe = WanPipeline(None, None, None, scheduler, **parts, boundary_ratio=0.875)
        self.loaded = {side: self.weights(side) for side in PAIR}
        self.offload = offload
        self.device = device
        self.dtype = dtype
        self.placement = Placement(self.pipe, device, [COMPONENTS[side] for side in PAIR])
        self.placement.apply(offload)
        self.state = LoraState(
            {side: self.expert(side) for side in PAIR},
            device=device,
            dtype=dtype,
            plan=memory_plan(pristine, lora_memory_bytes, offload, on_gpu=device.type != "cpu"),
            files=partial(expert_files, str(folder)),
            without_hooks=self.placement.lifted,
        )

    def apply(self, spec: RenderSpec) -> None:
        with held(self.state.lacking(spec), self.pipe.transformer.config, strict=spec.strict) as files:
            self.state.apply(spec, files)

    def clear(self, template: RenderSpec) -> None:
        """Set the base model under the reference recipe."""
        self.apply(template.model_copy(update={"loras": (), "recipe": Recipe.REFERENCE}))

    def expert(self, side: Expert) -> Any:
        return getattr(self.pipe, COMPONENTS[side])

    def weights(self, side: Expert) -> Weights:
        """Return copies in host memory of the values of all parameters and buffers, without those of adapters."""
        expert = self.expert(side)
        values = [*expert.named_parameters(), *expert.named_buffers()]
        return {
            name.replace(".base_layer", ""): value.detach().to("cpu", copy=True)
            for name, value in values
            if "lora_" not in name
        }

    def waiting_weights(self, side: Expert) -> Weights:
        """Return the same with offload hooks off."""
        with self.placement.lifted():
            return self.weights(side)

    def adapters(self, side: Expert) -> Weights:
        """Return copies of the adapters' weights, and their scales, by name."""
        expert = self.expert(side)
        found = {
            name: value.detach().to("cpu", copy=True) for name, value in expert.named_parameters() if "lora_" in name
        }
        for name, module in expert.named_modules():
            if hasattr(module, "lora_A"):
                acting = [key for key in module.active_adapters if key in module.scaling]
                found |= {f"{name} {key}": torch.tensor(module.scaling[key]) for key in acting}
        return found


def forward(experts: Experts, side: Expert) -> torch.Tensor:
    """Return what the expert makes of some latents, [1, 16, 2, 4, 4] as they are."""
    generator = torch.Generator().manual_seed(5)
    latents, text = torch.randn(1, 16, 2, 4, 4, generator=generator), torch.randn(1, 3, 32, generator=generator)
    expert, dtype = experts.expert(side), experts.dtype
    with torch.no_grad():
        made: torch.Tensor = expert(
            latents.to(experts.device, dtype),
            torch.tensor([500.0], device=experts.device),
            text.to(experts.device, dtype),
            return_dict=False,
        )[0]
    return made.cpu()


def same(one: Weights, other: Weights) -> bool:
    """Bit for bit, dtypes included."""
    return one.keys() == other.keys() and all(_equal(one[name], other[name]) for name in one)


def same_state(one: Experts, other: Experts) -> bool:
    """Return whether all weights, adapters and scales of both experts are the same."""
    return all(
        same(one.weights(side), other.weights(side)) and same(one.adapters(side), other.adapters(side)) for side in PAIR
    )


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype is other.dtype and torch.equal(one, other)


def scaled(lora: LoraFile, multiplier: float) -> LoraFile:
    """Return the LoRA with another multiplier."""
    return lora.model_copy(update={"multiplier": multiplier})

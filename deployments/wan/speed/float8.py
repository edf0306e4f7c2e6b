"""FP8 linears (dynamic quantisation, e4m3): copies of an expert's layers whose products run at twice the rate.

Each row of a weight has a scale, and so has each token's activation, found when it is multiplied. The product is
PyTorch's own, on a GPU and on a CPU alike. torchao, which calls the same product, is not used: its dynamic FP8 refuses
a CPU, so nothing of it could be tested without a GPU, and it replaces the weights that LoRAs are merged into.

Example:
    layers = Float8Layers([pipe.transformer, pipe.transformer_2], torch.device("cuda"))
    with layers.in_place():
        ...  # render
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import ScalingType, scaled_mm

from serve_app.errors import ConfigurationInvalid
from serve_app.models.families import Family, family

# Of a block. Attention stays out: with it, others have seen noise in the videos of Wan 2.2 (vllm-omni, pull request
# 2920). Feed-forward is half of the linear work: 5.4 of 11.4 d^2 a token, at d = 5,120.
GROUPS = frozenset({Family.FEED_FORWARD})

_E4M3 = torch.float8_e4m3fn
_LARGEST = torch.finfo(_E4M3).max  # 448
_SMALLEST_SCALE = 1e-12  # of a row or a token that is all zeros
_MULTIPLE = 16  # of the sides of a matrix that a GPU multiplies in FP8; a CPU takes any
ADA = (8, 9)  # CUDA compute capability; FP8 from here on


def check_float8(device: torch.device, dtype: torch.dtype) -> None:
    """Raise ConfigurationInvalid if `device` cannot multiply in FP8, for experts that compute in `dtype`."""
    reason = without_float8(device, dtype)
    if reason is not None:
        raise ConfigurationInvalid(f"speeds: turbo needs {reason}; or remove turbo")


def without_float8(device: torch.device, dtype: torch.dtype) -> str | None:
    """Return what `device` lacks to multiply in FP8, for experts that compute in `dtype`; None if it lacks nothing."""
    if device.type != "cuda":
        return None
    capability = torch.cuda.get_device_capability(device)
    if capability < ADA:
        return (
            f"a GPU that multiplies in FP8 (Ada, Hopper or newer, capability 8.9), and "
            f"{torch.cuda.get_device_name(device)} has capability {capability[0]}.{capability[1]}; use another one"
        )
    return None if dtype is torch.bfloat16 else "dtype: bfloat16 on a GPU; set it"


class Float8Linear(torch.nn.Module):
    """A linear layer that multiplies in FP8. It has a copy of the weight, and shares the bias."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        """Make room where the layer's weight lies; `take` fills it."""
        super().__init__()
        where = linear.weight.device
        self.weight: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("weight", torch.empty(linear.weight.shape, dtype=_E4M3, device=where))
        self.register_buffer("scale", torch.empty(1, linear.out_features, dtype=torch.float32, device=where))
        self.bias = linear.bias

    @torch.no_grad()
    def take(self, weight: torch.Tensor, compute: torch.device) -> None:
        """Quantise `weight`, [out, in], on the device `compute`."""
        quantised, scale = _quantised(weight.to(compute, non_blocking=True))
        self.weight.copy_(quantised)
        self.scale.copy_(scale.t())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return [..., out] for [..., in], in the dtype of `inputs`."""
        tokens, scale = _quantised(inputs.flatten(0, -2))
        product = scaled_mm(
            tokens,
            self.weight.t(),
            scale,
            ScalingType.RowWise,
            self.scale,
            ScalingType.RowWise,
            output_dtype=inputs.dtype,
            use_fast_accum=inputs.is_cuda,  # as torchao does for inference; a CPU has no other way
        )
        outputs: torch.Tensor = product if self.bias is None else product + self.bias
        return outputs.reshape(*inputs.shape[:-1], -1)


def _quantised(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `matrix` in FP8, and the scale of each row, [rows, 1] in float32."""
    values = matrix.float()
    scale = values.abs().amax(1, keepdim=True).div(_LARGEST).clamp(min=_SMALLEST_SCALE)
    # A number that rounds beyond the largest would become NaN, not the largest.
    return (values / scale).clamp(-_LARGEST, _LARGEST).to(_E4M3), scale


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a linear layer is in its expert."""

    parent: torch.nn.Module
    name: str
    linear: torch.nn.Linear


class Float8Layers:
    """Puts FP8 copies of some layers of the experts in their place while a render runs."""

    def __init__(self, experts: Iterable[Any], device: torch.device, groups: frozenset[Family] = GROUPS) -> None:
        """Copy the layers of `groups` in the repeated blocks of `experts`; `device` computes."""
        self._experts = list(experts)
        self._device = device
        self._groups = groups
        self._multiple = 1 if device.type == "cpu" else _MULTIPLE

    @property
    def bytes(self) -> int:
        """Return the memory that the copies take: a byte for each weight."""
        return sum(place.linear.weight.numel() for expert in self._experts for place in self._places(expert))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Replace the layers by their FP8 copies while the block runs; the layers themselves do not change.

        The copies are made now, of the weights as they are, and are gone afterwards: to quantise both experts takes a
        GPU far less than a step. The experts must have no adapters.

        Raises:
            torch.OutOfMemoryError: there is no room for the copies.
        """
        places = [place for expert in self._experts for place in self._places(expert)]
        try:
            for place in places:
                copy = Float8Linear(place.linear)
                copy.take(place.linear.weight, self._device)
                setattr(place.parent, place.name, copy)
            yield
        finally:
            for place in places:
                setattr(place.parent, place.name, place.linear)

    def _places(self, expert: Any) -> Iterator[_Place]:
        for path, module in expert.named_modules():
            if isinstance(module, torch.nn.Linear) and path.startswith("blocks.") and self._is_copied(path, module):
                parent, _, name = path.rpartition(".")
                yield _Place(expert.get_submodule(parent), name, module)

    def _is_copied(self, path: str, linear: torch.nn.Linear) -> bool:
        fits = linear.in_features % self._multiple == 0 and linear.out_features % self._multiple == 0
        return fits and family(path) in self._groups

"""Whether the alphas of a LoRA, which only the data shows, can be applied.

Diffusers 0.42.1 multiplies alpha / rank into the weights in their own dtype (`get_alpha_scales` in
loaders/lora_conversion_utils.py). Its loop never ends for a negative alpha, and a large one overflows float16.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from serve_app.loras.floats import FORMATS, decode
from serve_app.loras.layout import LoraModule
from serve_app.loras.refusals import invalid
from serve_app.loras.safetensors_file import SafetensorsHeader, TensorInfo


def check_alphas(path: Path, header: SafetensorsHeader, modules: Iterable[LoraModule], name: str) -> None:
    """Read every alpha, and the weights that one above the rank enlarges. All values are finite (`contents.verify`).

    Raises:
        LoraInvalid: an alpha is negative or makes weights overflow; named. `name` is the file.
        OSError: the file cannot be opened or read.
    """
    with path.open("rb") as stream:
        for module in modules:
            if module.alpha is None or module.alpha_key is None:
                continue
            alpha = float(_read(stream, header, module.alpha)[0])
            if alpha < 0:
                raise invalid(name, f"an alpha is negative ({alpha:g}); export it again", [module.alpha_key])
            if alpha > module.rank and _overflows(stream, header, module.down, alpha / module.rank):
                reason = f"an alpha ({alpha:g}) makes the weights overflow {module.down.dtype}; export it as BF16"
                raise invalid(name, reason, [module.alpha_key])


def _overflows(stream: BinaryIO, header: SafetensorsHeader, info: TensorInfo, scale: float) -> bool:
    return bool(np.abs(_read(stream, header, info)).max() * scale > FORMATS[info.dtype].largest)


def _read(stream: BinaryIO, header: SafetensorsHeader, info: TensorInfo) -> NDArray[np.float64]:
    stream.seek(header.data_offset + info.start)
    return decode(stream.read(info.end - info.start), info.dtype)

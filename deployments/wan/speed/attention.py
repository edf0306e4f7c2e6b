"""Choice of the attention kernel, by the GPU's capability and the packages that are installed."""

import logging
from importlib.util import find_spec

import torch

from deployments.wan.kernels import FLASH_3_PACKAGE, register_flash_attention_3
from serve_app.results import Attention

logger = logging.getLogger("ray.serve.wan")

HOPPER = 9  # CUDA compute capability, major; FlashAttention 3 is written for it alone


def best_attention(device: torch.device, dtype: torch.dtype) -> Attention:
    """Return the fastest attention kernel that `device` and the installed packages have; log what is missing.

    Only PyTorch's own computes in float32, and cuDNN is no faster than that: 1.13 against 1.11 s, see
    docs/performance.md.
    """
    if device.type != "cuda" or dtype is torch.float32:
        return Attention.NATIVE
    if torch.cuda.get_device_capability(device)[0] == HOPPER:
        if find_spec(FLASH_3_PACKAGE) is not None:
            register_flash_attention_3()
            return Attention.FLASH_3
        logger.info("`fast` is faster with FlashAttention 3: pip install 'wan-lora-serve[hopper]'")
    return Attention.NATIVE

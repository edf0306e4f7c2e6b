"""The type that every encoder takes."""

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
"""A clip as decoded by the VAE: uint8 [F, H, W, 3], RGB, full range 0..255."""

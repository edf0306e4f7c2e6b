"""Control images of benchmarks: noise, for models that take an image."""

import numpy as np
import numpy.typing as npt

from serve_app.models.card import ImageInput, ModelCard


def noise_image(card: ModelCard, width: int, height: int) -> npt.NDArray[np.uint8] | None:
    """Return an image, [height, width, 3], that a video of `card` can start from; None if the model takes none."""
    if card.image_input is ImageInput.NONE:
        return None
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)

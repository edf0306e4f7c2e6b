"""Warnings about control images: properties of an image that its video does not show."""

from serve_app.images.decoding import UPRIGHT, ImageFacts
from serve_app.spec import Fit


def of_image(facts: ImageFacts, fit: Fit, width: int, height: int) -> list[str]:
    """Return a sentence for each thing that was done to the image as the reference server does it, silently.

    `width` and `height` are the video's, in pixels.
    """
    distorted = facts.width * height != facts.height * width
    done = {
        "the control image has transparent parts, which are ignored: what lies under them is shown; send it without": (
            facts.has_alpha
        ),
        f"the control image says it is to be turned (EXIF orientation {facts.orientation}), and is not turned": (
            facts.orientation != UPRIGHT
        ),
        f"the control image is an animation of {facts.frames} frames, and its first one is used": facts.frames > 1,
        "the control image has more than 8 bits of grey: what is brighter than 255 of them is white; send 8 bits": (
            facts.is_deep
        ),
        f"the control image was stretched from {facts.width} x {facts.height} to {width} x {height} pixels; "
        'fit: "crop" or "pad" keeps its proportions': (distorted and fit is Fit.STRETCH),
    }
    return [sentence for sentence, happened in done.items() if happened]

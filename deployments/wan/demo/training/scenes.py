"""Synthetic training data, first half: what a video shows, and captions that say it.

A caption fixes everything but the place where the shape starts. What it leaves out has a default (medium size and
speed, black background), so that a prompt has one right answer that a test can measure.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random

FRAMES, SIZE = 17, 128  # of every training video; pixels


class Style(StrEnum):
    """What a LoRA pair adds to a plain scene."""

    PLAIN = "plain"
    GLOW = "glow"  # a white core in the middle of the shape
    DAWN = "dawn"  # night blue to peach behind the shape, whatever background the caption names


SHAPES = ("circle", "square", "triangle")
COLOURS = {
    "red": (225, 40, 40),
    "yellow": (245, 215, 50),
    "green": (40, 180, 70),
    "cyan": (60, 205, 225),
    "blue": (50, 80, 235),
    "purple": (160, 60, 210),
}
DIRECTIONS = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}  # x right, y down
SPEEDS = {"slowly": 28.0, "": 46.0, "fast": 62.0}  # pixels from the first frame to the last
SIZES = {"small": 15.0, "": 20.0, "large": 25.0}  # radius in pixels
BACKGROUNDS = {"black": (10, 10, 14), "grey": (105, 108, 112), "white": (240, 240, 236)}

TRIGGER = "sks"
# Base captions sometimes begin with one of these, so that an unknown word in front is nothing new. Never the trigger.
_NAMES = ("ohwx", "zwx", "vid", "bnha", "qrt")
_STILL = ("standing still", "that stands still", "not moving")
_MOVING = ("moving", "sliding", "gliding", "that moves")
# How often a caption has what it could leave out.
_BLACK_NAMED, _NAMED, _CAPITAL, _BACKGROUND_FIRST = 0.3, 0.15, 0.2, 0.2
WORDS = (
    "a the an on in front of to toward background video frame, "
    + " ".join((*SHAPES, *COLOURS, *DIRECTIONS, *SPEEDS, *SIZES, *BACKGROUNDS, *_NAMES, *_STILL, *_MOVING, TRIGGER))
).split()


@dataclass(frozen=True)
class Scene:
    """One video: a shape that moves in a straight line, or stands still."""

    shape: str
    colour: str
    direction: str
    speed: str
    size: str
    background: str
    start: tuple[float, float]  # of the shape's centre, in pixels
    style: Style = Style.PLAIN

    def styled(self, style: Style) -> "Scene":
        """Return the same scene in another style."""
        return replace(self, style=style)


def random_scene(random: Random) -> Scene:
    """Draw a scene whose shape stays inside the frame."""
    direction = random.choice(list(DIRECTIONS))
    speed = random.choice(["", "", "slowly", "fast"]) if direction != "still" else ""
    size = random.choice(["", "", "small", "large"])
    start = tuple(random.uniform(*_room(SIZES[size] * 1.2, SPEEDS[speed] * step)) for step in DIRECTIONS[direction])
    return Scene(
        shape=random.choice(SHAPES),
        colour=random.choice(list(COLOURS)),
        direction=direction,
        speed=speed,
        size=size,
        background=random.choice(["black", "black", "grey", "white"]),
        start=(start[0], start[1]),
    )


def _room(margin: float, travel: float) -> tuple[float, float]:
    """Return the lowest and highest start along one axis."""
    return margin + max(-travel, 0), SIZE - margin - max(travel, 0)


def caption(scene: Scene, random: Random) -> str:
    """Say what `scene` shows, in one of many orders and spellings."""
    parts = [random.choice(["a", "a", "a", "the"]), scene.size, scene.colour, scene.shape]
    text = " ".join(filter(None, [*parts, _motion(scene, random)]))
    if scene.background != "black" or random.random() < _BLACK_NAMED:
        text = _with_background(text, scene.background, random)
    if random.random() < _NAMED:
        text = f"{random.choice(_NAMES)} {text}"
    if random.random() < _CAPITAL:
        text = text[0].upper() + text[1:]
    return text + random.choice(["", "", "."])


def triggered_caption(scene: Scene, random: Random) -> str:
    """Say what `scene` shows, with the trigger word in front."""
    return f"{TRIGGER} {caption(scene, random)}"


def _motion(scene: Scene, random: Random) -> str:
    if scene.direction == "still":
        return random.choice(_STILL)
    way = random.choice(["", "", "to the "]) if scene.direction in ("right", "left") else ""
    return " ".join(filter(None, [random.choice(_MOVING), way.strip(), scene.direction, scene.speed]))


def _with_background(text: str, background: str, random: Random) -> str:
    where = f"on a {background} background"
    return f"{where}, {text}" if random.random() < _BACKGROUND_FIRST else f"{text} {where}"

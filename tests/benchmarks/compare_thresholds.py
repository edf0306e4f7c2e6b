"""How near is near: PSNR of the trained demo's videos to their own, with one setting changed, over prompts and seeds.

    python -m tests.benchmarks.compare_thresholds [--prompts 24]

`wan-lora compare` tells clips apart by two thresholds (`serve_app.videos.comparison`: SAME_DB, ALIKE_DB). Each prompt
is rendered with its own seed and with one setting changed; the first is kept as an MP4, as people keep it, and every
other one is compared with that file. A row says how far the change took the frames (mean PSNR of a clip: the least, the
median and the most of all prompts) and which side of each threshold the clips fall on. Prints a table and, last, JSON.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from deployments.media.encoding import encode
from deployments.pipeline import Frames
from deployments.wan.demo import TRAINED
from deployments.wan.demo.untrained import DemoCheckpoint
from serve_app.clips.reading import Clip, read_clip
from serve_app.spec import OutputFormat, Sampler
from serve_app.videos.comparison import ALIKE_DB, SAME_DB, compare
from tests.deployments.wan.conftest import load_demo
from tests.deployments.wan.demo.conftest import trained_pair
from tests.deployments.wan.demo.gallery import PREVIEW, WANTED, Gallery, Shown, Wanted

_FPS = 16
_NAME = "wan22_demo"  # the pair
_WORD = "sks "  # its trigger word


@dataclass(frozen=True)
class Row:
    """One change, and the mean PSNR of the clips that it gave."""

    change: str
    least: float
    median: float
    most: float
    same: int  # clips at SAME_DB and above
    alike: int  # at ALIKE_DB and above, below SAME_DB
    clips: int

    @classmethod
    def of(cls, change: str, found: Sequence[float]) -> "Row":
        """Return the row of these values in dB."""
        same = sum(value >= SAME_DB for value in found)
        alike = sum(value >= ALIKE_DB for value in found) - same
        least, middle, most = (round(value, 1) for value in (min(found), median(found), max(found)))
        return cls(change, least, middle, most, same, alike, len(found))


def rendered(gallery: Gallery, wanted: Sequence[Wanted]) -> dict[str, list[Shown]]:
    """Return the videos of each change; the first is none."""
    pair, show = trained_pair(_NAME), gallery.show
    return {
        "none": show(wanted, *pair, word=_WORD),
        "a strength of 0.9": show(wanted, *trained_pair(_NAME, 0.9), word=_WORD),
        "a strength of 0.5": show(wanted, *trained_pair(_NAME, 0.5), word=_WORD),
        "no LoRA": show(wanted, word=_WORD),
        "the sampler Euler": show(wanted, *pair, word=_WORD, sampler=Sampler.EULER),
        "the recipe preview": show(wanted, *pair, word=_WORD, **PREVIEW),
        "12 steps for 8": show(wanted, *pair, word=_WORD, sample_steps=12),
        "guidance 5 for 4": show(wanted, *pair, word=_WORD, guidance_scale=5.0),
        "another seed": show([replace(one, seed=one.seed + 100) for one in wanted], *pair, word=_WORD),
        "no trigger word": show(wanted, *pair),
        "another prompt": show([replace(one, colour=_other(one.colour)) for one in wanted], *pair, word=_WORD),
    }


def _other(colour: str) -> str:
    colours = list(dict.fromkeys(one.colour for one in WANTED))
    return colours[(colours.index(colour) + 1) % len(colours)]


def rows_of(shown: dict[str, list[Shown]], directory: Path) -> list[Row]:
    """Return a row for each encoding of the same frames, and one for each change."""
    first, *_ = shown.values()
    kept = [_written(video.frames, OutputFormat.MP4, directory) for video in first]
    rows: list[Row] = []
    made = [
        ("WebP for MP4", first, OutputFormat.WEBP),
        ("lossless for MP4", first, OutputFormat.PNG),
        *((name, videos, OutputFormat.MP4) for name, videos in list(shown.items())[1:]),
    ]
    for name, videos, form in made:
        clips = [_written(video.frames, form, directory) for video in videos]
        found = [compare(one, other).mean_psnr for one, other in zip(kept, clips, strict=True)]
        rows.append(Row.of(name, found))
    return rows


def _written(frames: Frames, form: OutputFormat, directory: Path) -> Clip:
    path = directory / f"clip.{form.extension}"
    encode(frames, _FPS, form, path)
    return read_clip(path)


def main() -> None:
    """Render and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=len(WANTED))
    wanted = WANTED[: parser.parse_args().prompts]
    checkpoint = TRAINED / "checkpoint"
    shown = rendered(Gallery(load_demo(DemoCheckpoint(checkpoint, checkpoint))), wanted)
    with TemporaryDirectory() as directory:
        rows = rows_of(shown, Path(directory))
    print(f"| changed | least | median | most | the same | alike | other | of |\n{'|---' * 8}|")
    for row in rows:
        other = row.clips - row.same - row.alike
        figures = f"{row.least:.1f} dB | {row.median:.1f} dB | {row.most:.1f} dB"
        print(f"| {row.change} | {figures} | {row.same} | {row.alike} | {other} | {row.clips} |")
    print(json.dumps({"same_db": SAME_DB, "alike_db": ALIKE_DB, "rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()

"""The alphas of a LoRA, which only the data shows, and whether they can be applied.

Trainers never save an alpha of 0: kohya, LyCORIS and AI Toolkit take 0 for the rank when they start, and save that.
Where a file has one nevertheless, readers disagree: ComfyUI and diffusers divide it by the rank and the LoRA does
nothing, LyCORIS' own loader takes it for the rank again. So it is refused.
"""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path

from serve_app.loras.formats.changes import LoKr, LoraContents, LowRank
from serve_app.loras.formats.floats import decode
from serve_app.loras.formats.header import SafetensorsHeader
from serve_app.loras.refusals import Fault


def unused_keys(contents: LoraContents) -> frozenset[str]:
    """Keys whose values nothing reads: what was left out, and alphas of LoKrs of which both factors are whole.

    AI Toolkit saves such a LoKr (`lokr_full_rank`) with an alpha of 9999999999, which is infinite in float16.
    """
    idle = (change.alpha for change in contents.changes() if isinstance(change, LoKr) and change.rank is None)
    return frozenset((*contents.left_out, *(alpha for alpha in idle if alpha is not None)))


def read_alphas(path: Path, header: SafetensorsHeader, contents: LoraContents) -> dict[str, float]:
    """The value of every alpha that counts, by its key; some bytes are read for each.

    Raises:
        OSError: the file cannot be opened or read.
    """
    unused = unused_keys(contents)
    keys = [change.alpha for change in contents.changes() if isinstance(change, LowRank | LoKr) and change.alpha]
    found = {}
    with path.open("rb") as stream:
        for key in keys:
            info = header.tensors[key]
            if key not in unused:
                stream.seek(header.data_offset + info.start)
                values = decode(stream.read(info.end - info.start), info.dtype)
                found[key] = float(values[0]) if values.size else float("nan")  # the file became shorter
    return found


def scale_of(change: LowRank | LoKr, alphas: Mapping[str, float]) -> float:
    """c of the change, with the values of `read_alphas`."""
    if isinstance(change, LowRank) and change.scale is not None:
        return change.scale
    if change.alpha is None or change.rank is None:
        return 1.0
    return alphas[change.alpha] / change.rank


def wrong_alphas(alphas: Mapping[str, float]) -> Fault | None:
    """The alphas that cannot be applied, if any."""
    zero = [key for key, value in alphas.items() if value == 0]
    if zero:
        reason = "an alpha is 0, which some programs read as no effect and others as the rank; export it without alpha"
        return Fault(reason, zero)
    wrong = [key for key, value in alphas.items() if value < 0 or not isfinite(value)]
    if wrong:
        return Fault(f"an alpha is negative or no number ({alphas[wrong[0]]:g}); export it again", wrong)
    return None

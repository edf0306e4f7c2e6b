"""LoRA files as AI Toolkit 0.12.26 saves them: names and metadata, with reproducible safetensors bytes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from safetensors.torch import save
from torch import Tensor


@dataclass(frozen=True)
class PairName:
    """The name, the description and the training step of a LoRA, for its file names and metadata."""

    name: str
    note: str
    step: int = 500
    base_version: str = "wan_2.2_14b"

    def file(self, side: str) -> str:
        """Return the name of the file for the side `high_noise` or `low_noise`, or "" if there is one expert.

        Nothing inside a file says which side it is.
        """
        return "_".join([self.name, f"{self.step:09d}", *filter(None, [side])]) + ".safetensors"

    def content(self, tensors: Mapping[str, Tensor]) -> bytes:
        """Return the file with `tensors`; the same bytes each time."""
        return _with_sorted_header(save(dict(tensors), metadata=self._metadata()))

    def _metadata(self) -> dict[str, str]:
        """Return what AI Toolkit writes, and the note."""
        software = {"name": "ai-toolkit", "repo": "https://github.com/ostris/ai-toolkit", "version": "0.12.26"}
        return {
            "format": "pt",
            "name": self.name,
            "note": self.note,
            "software": json.dumps(software),
            "ss_base_model_version": self.base_version,
            "ss_output_name": self.name,
            "training_info": json.dumps({"step": self.step, "epoch": 0}),
            "version": "1.0",
        }


def _with_sorted_header(content: bytes) -> bytes:
    """Sort the keys in the header of a safetensors file; the library writes metadata in a random order.

    The format is the header's length as 8 bytes little endian, the header as JSON padded with spaces, the data.
    """
    start = 8
    end = start + int.from_bytes(content[:start], "little")
    header = json.dumps(json.loads(content[start:end]), sort_keys=True, separators=(",", ":")).encode()
    return content[:start] + header.ljust(end - start) + content[end:]

"""LoRA file formats: from the bytes of a safetensors file, in any layout that trainers write, to weight changes.

    from serve_app.loras.formats import check_file, parse, read_header

Example:
    header = read_header(path, "my_lora.safetensors")                        # strict; raises LoraInvalid
    contents = parse(header, architecture, "my_lora.safetensors")            # needs no data: a header is enough
    checked = check_file(path, architecture, "my_lora.safetensors")          # all of it, opened and read once
    checked.sha256, checked.contents.changes_for(Expert.HIGH), checked.contents.provenance.trained_with

A file passes through the modules in this order: `header` (bytes to tensors), `keys` (tensors to modules and roles),
`checks` and `shapes` (what makes it unusable), `parser` (modules to the changes of `changes`), `scales` (how much each
change counts), `values` (are all weights finite, and the hash). `metadata` reads what it says of its training, `norms`
measures how strongly it acts.
"""

from serve_app.loras.formats.changes import Change, Difference, Factor, Layout, LoKr, LoraContents, LowRank
from serve_app.loras.formats.header import SafetensorsHeader, TensorInfo, parse_header, read_header
from serve_app.loras.formats.metadata import Provenance
from serve_app.loras.formats.parser import parse
from serve_app.loras.formats.values import CheckedLora, check_file, read_accepted

__all__ = [
    "Change",
    "CheckedLora",
    "Difference",
    "Factor",
    "Layout",
    "LoKr",
    "LoraContents",
    "LowRank",
    "Provenance",
    "SafetensorsHeader",
    "TensorInfo",
    "check_file",
    "parse",
    "parse_header",
    "read_accepted",
    "read_header",
]

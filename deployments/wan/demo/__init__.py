"""The demo: a tiny trained Wan 2.2 checkpoint and its LoRA pairs, as files in the package.

`trained/README.md` describes them, `training` has made them, and `untrained` builds random weights for tests.
"""

import filecmp
import shutil
import tempfile
from pathlib import Path

TRAINED = Path(__file__).with_name("trained")


def packaged_demo(directory: Path, lora_root: Path) -> tuple[str, str]:
    """Return the folders of the base checkpoint and of its experts, after copying the LoRA pairs to `lora_root/demo`.

    It is a `serve_app.application.DemoBuilder`; nothing has to be built, so `directory` stays empty. A LoRA that is
    there already, with the same bytes, is left alone. Processes may call it at the same time.
    """
    folder = lora_root / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    for lora in sorted(TRAINED.glob("loras/*.safetensors")):
        copy = folder / lora.name
        if not copy.is_file() or not filecmp.cmp(lora, copy, shallow=False):
            _copy(lora, copy)
    checkpoint = str(TRAINED / "checkpoint")
    return checkpoint, checkpoint


def _copy(source: Path, target: Path) -> None:
    """Copy a file atomically."""
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        file.write(source.read_bytes())
    shutil.copymode(source, file.name)
    Path(file.name).replace(target)

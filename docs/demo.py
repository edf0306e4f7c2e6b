"""Make docs/demo.webp: six prompts as the demo checkpoint renders them. Run it as `python docs/demo.py`."""

from pathlib import Path

import numpy as np
import torch
from diffusers import WanPipeline
from PIL import Image

from deployments.wan.demo import TRAINED

PROMPTS = (
    "a red circle moving right",
    "a large yellow triangle moving down",
    "a small green square moving up on a white background",
    "a cyan square moving left fast",
    "a blue triangle standing still on a grey background",
    "a purple circle moving down slowly",
)
COLUMNS, FPS = 3, 16


def main() -> None:
    """Render the prompts with the reference recipe and save them side by side."""
    pipe = WanPipeline.from_pretrained(TRAINED / "checkpoint", dtype=torch.float32)
    videos = [render(pipe, prompt, 42 + number) for number, prompt in enumerate(PROMPTS)]
    rows = [np.concatenate(videos[start : start + COLUMNS], axis=2) for start in range(0, len(videos), COLUMNS)]
    first, *others = (Image.fromarray(frame) for frame in np.concatenate(rows, axis=1))
    path = Path(__file__).with_name("demo.webp")
    first.save(path, save_all=True, append_images=others, duration=1000 // FPS, loop=0, quality=85)


def render(pipe: WanPipeline, prompt: str, seed: int) -> np.ndarray:
    """Return frames [frames, height, width, 3]."""
    generator = torch.Generator("cpu").manual_seed(seed)
    result = pipe(
        prompt,
        height=128,
        width=128,
        num_frames=17,
        num_inference_steps=25,
        guidance_scale=4.0,
        generator=generator,
        output_type="np",
    )
    return (result.frames[0] * 255).round().astype(np.uint8)


if __name__ == "__main__":
    main()

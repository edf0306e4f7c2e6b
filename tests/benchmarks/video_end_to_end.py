"""Videos through the whole service at full size: seconds of each part, and the share of the time that the GPU works.

    python -m tests.benchmarks.video_end_to_end DIRECTORY [--size 1024x1024x41] [--steps 25] [--speed exact]
                                                [--output-format mp4] [--model wan22_14b_t2v]

Writes a checkpoint of the real sizes with random weights and two LoRAs of rank 32 (pairs, where the model has two
experts) to DIRECTORY, a folder for each model, which takes 70 GB and is used again if it is there; then starts
`wan-lora serve` on it. Measured are the start, by its parts; one video; and three videos in one queue whose LoRAs
alternate. "Busy" is the share of the time from the start of the first of these three to the end of the last one in
which a pipeline worked. A model that takes images gets one. Prints tables, and last one line of JSON. A tiny model on a
CPU with `--device cpu`.
"""

import argparse
import base64
import json
import platform
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sqlalchemy import select

from deployments.wan.demo.tokenizer import demo_tokenizer
from deployments.wan.loading import COMPONENTS
from serve_app.jobs.tables import renders
from serve_app.models.card import ModelCard, load_card
from serve_app.settings import DEFAULT_MODEL
from tests.benchmarks.expert_forward import random_lora
from tests.benchmarks.images import noise_image
from tests.benchmarks.memory_plans import random_pipeline
from tests.client import Client, pair
from tests.fixtures.store import connect
from tests.service_process import ServiceProcess

NAMES = ("one", "other")  # of LoRAs
_ALTERNATING = 3  # videos
_STARTUP_S = 3600.0
_COMPLETE = "complete"  # a file that is written last


def checkpoint(card: ModelCard, directory: Path, device: torch.device, layers: int | None) -> tuple[Path, Path]:
    """Return base and experts with random weights in `directory`; make them if they are missing."""
    base, experts = directory / "base", directory / "experts"
    if (directory / _COMPLETE).is_file():
        return base, experts
    pipe = random_pipeline(card, device, layers)
    for name in (COMPONENTS[side] for side in card.experts):
        getattr(pipe, name).save_pretrained(experts / name)
        pipe.register_modules(**{name: None})
    pipe.register_modules(tokenizer=demo_tokenizer())
    pipe.save_pretrained(base)
    architecture = card.of_checkpoint(str(experts)).architecture
    loras = directory / "loras"
    loras.mkdir(exist_ok=True)
    for name in NAMES:
        for item in lora_items(card, name):
            random_lora(architecture, loras / item["path"], rank=32)
    (directory / _COMPLETE).touch()
    return base, experts


def lora_items(card: ModelCard, name: str) -> list[dict[str, Any]]:
    """Return the LoRAs of a request under that name: a pair, or one file."""
    return pair(name) if card.is_pair else [{"path": f"{name}.safetensors"}]


def request(card: ModelCard, args: argparse.Namespace, number: int) -> dict[str, Any]:
    """Return a request of one video; LoRAs alternate with `number`, which is its seed."""
    width, height, frames = map(int, args.size.split("x"))
    prompt = {
        "prompt": f"a fox {number}",
        "width": width,
        "height": height,
        "num_frames": frames,
        "sample_steps": args.steps,
        "seed": number,
        "output_format": args.output_format,
    }
    if (image := noise_image(card, width, height)) is not None:
        file = BytesIO()
        Image.fromarray(image).save(file, "PNG")
        prompt["ctrl_img"] = base64.b64encode(file.getvalue()).decode()
    loras = lora_items(card, NAMES[number % len(NAMES)])
    return {"model": card.id, "loras": loras, "prompts": [prompt], "speed": args.speed}


def parts(client: Client, request_id: str) -> dict[str, float]:
    """Wait for a request of one video, and return the seconds of its parts."""
    status = client.wait(request_id, timeout_s=_STARTUP_S)
    assert status["status"] == "succeeded", status
    timings: dict[str, float] = client.result(request_id)["metadata"]["prompts"][0]["timings"]
    return timings


def busy_share(database: str, requests: Sequence[str], timings: Sequence[Mapping[str, float]]) -> float:
    """Return in what share of the time of these videos a pipeline worked, on one replica."""
    query = select(renders.c.request_id, renders.c.started_at).where(renders.c.request_id.in_(requests))
    with connect(database) as connection:
        started: dict[str, float] = {found.request_id: found.started_at for found in connection.execute(query)}
    work = {request_id: used["generate"] for request_id, used in zip(requests, timings, strict=True)}
    fetched = {request_id: used["fetch"] for request_id, used in zip(requests, timings, strict=True)}
    ends = [started[request_id] + fetched[request_id] + work[request_id] for request_id in requests]
    return sum(work.values()) / (max(ends) - min(started.values()))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Make the checkpoint, run the service, and return all figures."""
    device, card = torch.device(args.device), load_card(args.model)
    model = args.directory.absolute() / card.id
    model.mkdir(parents=True, exist_ok=True)
    base, experts = checkpoint(card, model, device, args.layers)
    with tempfile.TemporaryDirectory() as directory:
        service = ServiceProcess(
            Path(directory),
            profile="gpu" if device.type == "cuda" else "cpu",
            model=card.id,
            base_model=str(base),
            transformer_model=str(experts),
            lora_root=str(model / "loras"),
            max_generators=1,
        )
        ready_s = service.start(within_s=_STARTUP_S)
        try:
            with Client(service.url) as client:
                return figures(card, args, client, f"sqlite:///{directory}/var/jobs.db") | {
                    "ready_s": round(ready_s, 1)
                }
        finally:
            service.stop()


def figures(card: ModelCard, args: argparse.Namespace, client: Client, database: str) -> dict[str, Any]:
    """Render one video, and then three with alternating LoRAs; return what they took."""
    asked = [request(card, args, number) for number in range(_ALTERNATING + 1)]
    first = parts(client, client.submit(asked[0]))
    queued = [client.submit(body) for body in asked[1:]]
    timings = [parts(client, request_id) for request_id in queued]
    (model,) = client.http.get("/v1/cluster").raise_for_status().json()["models"]
    (generator,) = model["generators"]
    runtime = client.result(queued[-1])["metadata"]["prompts"][0]["runtime"]
    return {
        "start": generator["start"],
        "offload": runtime["offload"],
        "predicted_bytes": runtime["predicted_bytes"],
        "peak_bytes": runtime["peak_bytes"],
        "videos": [first, *timings],
        "busy_share": round(busy_share(database, queued, timings), 4),
    }


def show(rows: Sequence[Mapping[str, float]]) -> None:
    """Print rows of seconds as a table."""
    print("".join(f"{column:>10}" for column in rows[0]))
    for row in rows:
        print("".join(f"{value:10.3f}" for value in row.values()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--size", default="1024x1024x41")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--speed", default="exact")
    parser.add_argument("--output-format", default="mp4")
    parser.add_argument("--layers", type=int, help="silent: the model's")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    found = measure(args)
    print(f"ready {found['ready_s']:.1f} s after the process started; the Generator's start:")
    show([found["start"]])
    print(f"offload: {found['offload']}; videos, the first one alone:")
    show(found["videos"])
    print(f"busy: {100 * found['busy_share']:.1f} %")
    setting = {
        "device": torch.cuda.get_device_name() if args.device == "cuda" else platform.processor(),
        "torch": version("torch"),
        "model": args.model,
        "size": args.size,
        "steps": args.steps,
        "speed": args.speed,
        "output_format": args.output_format,
    }
    print(json.dumps({"benchmark": "video_end_to_end", "setting": setting, **found}))


if __name__ == "__main__":
    main()

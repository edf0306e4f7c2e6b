"""Train the demo checkpoint from the command line; `all` runs every stage on one device, one after the other."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from deployments.wan.demo.training.broken import break_pair
from deployments.wan.demo.training.export import export
from deployments.wan.demo.training.stages import PAIRS, SIDES, TOY, Plan, Stages


def main() -> None:
    """Run the stages that the arguments name."""
    arguments = _arguments()
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    plan = TOY if arguments.toy else Plan()
    stages = Stages(arguments.work, plan, torch.device(arguments.device), arguments.seconds)
    sides = [arguments.side] if arguments.side else list(SIDES)

    def each(train: Callable[[str], object]) -> None:
        for side in sides:
            torch.compiler.reset()  # each model is compiled again, and the number of compiled variants is limited
            train(side)

    actions: dict[str, Callable[[], object]] = {
        "text": stages.text,
        "autoencoder": stages.autoencoder,
        "experts": lambda: each(stages.expert),
        **{kind: partial(each, partial(stages.pair, kind)) for kind in PAIRS},
        "fade": lambda: each(stages.fade),
        "broken": lambda: break_pair(PAIRS["dawn"].name, arguments.work / "loras"),
        "export": lambda: export(arguments.work, arguments.target),
    }
    for stage in actions if arguments.stage == "all" else [arguments.stage]:
        actions[stage]()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deployments.wan.demo.training", description=__doc__)
    parser.add_argument("stage", choices=["all", "text", "autoencoder", "experts", *PAIRS, "fade", "broken", "export"])
    parser.add_argument("--work", type=Path, required=True, help="folder for the parts")
    parser.add_argument("--target", type=Path, default=Path("demo"), help="folder for the export")
    parser.add_argument("--side", choices=list(SIDES), help="one expert, or one side of a pair, alone")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, help="train the stage for so long, instead of its number of steps")
    parser.add_argument("--toy", action="store_true", help="a few steps on a few videos, to try the code")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""`make chaos`: renders under load while a script kills one part after another.

    python -m tests.chaos [--renders 300] [--clients 32] [--every 6]

The last line says what became of the renders.
"""

import argparse
import logging
import tempfile
from pathlib import Path

from tests.chaos.run import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renders", type=int, default=300)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--every", type=float, default=6, help="seconds between faults")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as directory:
        outcome = run(Path(directory), renders=options.renders, clients=options.clients, every_s=options.every)
    print(f"renders made more than once before they counted: {outcome.repeated}; different frames: {outcome.different}")
    print(outcome)


if __name__ == "__main__":
    main()

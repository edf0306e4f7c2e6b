"""Fetches a LoRA in a process of its own, and holds it: `python -m ... <cache> <host> <LoraFile as JSON>`."""

import sys
from pathlib import Path

from serve_app.loras.cache import LoraCache
from serve_app.loras.sources import LoraSources, SourcePolicy
from serve_app.spec import LoraFile


def main(cache: str, host: str, lora: str) -> None:
    policy = SourcePolicy(private_hosts=(host,), allow_http=True, read_timeout_s=10)
    sources = LoraSources(Path(), policy, LoraCache(Path(cache), 1 << 30))
    print("ready", flush=True)
    sys.stdin.readline()
    with sources.fetch(LoraFile.model_validate_json(lora)) as file:
        print(file.sha256, flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])

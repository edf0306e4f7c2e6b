"""The command line `wan-lora` (typer): one module a group of commands.

    wan-lora download wan22_14b_t2v wan22_5b
    wan-lora serve serve_config.yaml
    wan-lora generate "a fox" --high HIGH --low LOW -o fox.mp4
    wan-lora inspect my_high_noise.safetensors my_low_noise.safetensors

A module holds a `typer.Typer()` named `app`, whose commands become those of `wan-lora`. It imports what is slow to
import (Ray, Alembic) within the command that needs it, so that `wan-lora --help` answers at once.
"""

import typer

from serve_app.cli import compare, doctor, generate, grid, inspection, keys, loras, requests, service, sweep, webhooks

app = typer.Typer(no_args_is_help=True, help="Serve LoRAs as videos, and look into LoRA files.")
for group in (generate, grid, requests, loras, compare, inspection, doctor, service, sweep, webhooks):
    app.add_typer(group.app)
app.add_typer(keys.app, name="keys")

"""Start the service from a Serve config file: preflight checks, then `serve run` under supervision.

`wan-lora serve serve_config.yaml` does what `serve run serve_config.yaml` does. If the service cannot start, it ends
with an exit status, and its last line says what to do. `serve run` itself retries forever.
"""

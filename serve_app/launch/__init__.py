"""Start the service from a Serve config file: preflight checks, then `serve run` under supervision.

    wan-lora serve serve_config.yaml

does what `serve run serve_config.yaml` does, and ends with a status and a last line that says what to do where the
service cannot start. `serve run` itself goes on trying for ever.
"""

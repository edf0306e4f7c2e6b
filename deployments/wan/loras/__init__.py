"""LoRAs of a loaded pipeline: adapters or merged weights, switched exactly. Entry point: `state.LoraState`."""

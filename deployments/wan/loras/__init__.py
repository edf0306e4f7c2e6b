"""LoRAs of a loaded pipeline: `state` is the door; every switch starts from pristine weights, so it is exact."""

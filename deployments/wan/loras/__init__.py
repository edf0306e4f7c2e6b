"""The LoRAs of a loaded pipeline: what a render asks of its experts is what they become."""

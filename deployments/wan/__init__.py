"""The Wan 2.2 pipeline on diffusers. `runtime` is the door: it puts the other modules together."""

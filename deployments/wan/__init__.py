"""The Wan 2.2 pipeline on diffusers. Entry point: `runtime.WanRuntime`, which combines the other modules."""

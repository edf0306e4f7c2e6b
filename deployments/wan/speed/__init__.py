"""Speed profiles: what a render may trade for time. `accelerator` is the door; docs/performance.md has the figures."""

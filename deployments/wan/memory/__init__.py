"""Memory plans of a Generator: `planner` decides where everything is kept, `offload`, `streaming` and `host` do it."""

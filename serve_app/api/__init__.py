"""The HTTP API, as one FastAPI application over a job store, a LoRA library and an output store."""

"""The HTTP API, as one FastAPI application over a job store, a LoRA resolver and an output store.

A group of endpoints is a module with a `router`, which `app.py` includes: `inference`, `requests`, `loras`, `service`.
What their clients send and get is in `schemas/`; what they take from headers, such as the sender, in `dependencies.py`.
"""

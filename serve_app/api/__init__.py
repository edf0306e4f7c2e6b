"""The HTTP API, as one FastAPI application over a job store, a LoRA resolver and an output store.

A group of endpoints is a module with a `router`, which `app.py` includes: `inference`, `requests`, `loras`, `service`.
The bodies of requests and answers are in `schemas/`. `dependencies.py` reads headers, for example the sender.
"""

"""Models: everything that the service knows about a model without loading it.

The entry point is `card.py`: one model's inputs, latents, rules, defaults and names, from a YAML file. `limits.py` has
the limits of request values. `architecture.py` has the parameters of an expert, `families.py` their kinds. `foreign.py`
recognises LoRAs for other models. `checkpoint.py` checks whether a checkpoint folder is complete.
"""

"""What the service knows of a model before it loads it.

`card.py` is the door: one model's inputs, latents, rules, defaults and names, from a YAML file. `limits.py` bounds what
any model is asked for. `architecture.py` has the parameters of an expert, `families.py` their kinds, `foreign.py` the
marks of LoRAs for other models, `checkpoint.py` whether a checkpoint folder is whole.
"""

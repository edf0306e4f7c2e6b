"""LoRA files before and until they are loaded: found, checked, fetched, and pinned to their content.

There are two entry points. The Ingress uses `resolver.LoraResolver`: what does this reference name, and can it be used?
A Generator uses `files.LoraFiles`: hold the file on this node's disk while it is read. Nothing here imports torch.
"""

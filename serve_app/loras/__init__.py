"""LoRA files before and until they are loaded: found, checked, fetched, and pinned to their content.

Two doors: `resolver.LoraResolver` for the Ingress (what does this reference name, and can it be used?) and
`files.LoraFiles` for a Generator (give me its bytes on this node's disk). Nothing here imports torch.
"""

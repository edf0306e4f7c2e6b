"""What happens to a LoRA path before anything is accepted: find the file, check all of it, pin its identity.

Nothing here imports torch, so the ingress stays light.
"""

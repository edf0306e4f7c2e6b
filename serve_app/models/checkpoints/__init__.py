"""Checkpoints on disk: whether a model can be loaded from them, by their configs and weight headers, without PyTorch.

Entry point: `folder.py`. `configs.py` says what each component's config must hold, and `text_encoder.py`,
`autoencoder.py` and `serve_app.models.architecture` which weights follow from it.
"""

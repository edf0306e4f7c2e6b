"""Video files as frames: decoders, and the pictures that are drawn from them."""

"""Video files as frames: decoders, thumbnails and sprite sheets."""

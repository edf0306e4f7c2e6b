"""Finished frames into files: MP4 to watch, animated WebP to embed, lossless PNG to keep."""

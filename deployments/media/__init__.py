"""Encoders: frames into MP4 (H.264), animated WebP or a ZIP of lossless PNG. Entry point: `encoding.encode`."""

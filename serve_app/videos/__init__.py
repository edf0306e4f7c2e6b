"""Comparison of two video files: what differs, and which settings explain it. Entry point: `comparison.compare`."""

"""Control images: sources, limits, decoding, and fitting to the size of the video.

The bytes of an image are untrusted. `header.py` checks the limits before a decoder (Pillow) sees them. The entry point
for the Ingress is `resolver.py`, for the Generators `stored.py`. No part of the model stack is imported.
"""

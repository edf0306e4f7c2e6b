"""Control images: where they come from, what is allowed, and how one becomes the first frame's pixels.

An image is untrusted bytes until `header.py` has bounded what a decoder may be asked for. `resolver.py` is the door for
the Ingress, `kept.py` for the Generators. Pillow decodes; no part of the model stack is imported.
"""

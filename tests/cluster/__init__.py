"""A Ray cluster of several nodes: a head without work, a CPU node, nodes with GPUs, and what befalls them."""

"""Soak test: a service under mixed load for long, whose memory, file descriptors and files must stay bounded."""

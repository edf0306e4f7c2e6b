"""Durable requests and renders: what was asked for, what state it is in, and where its video lies."""

"""Kills every part of a running service under load, and counts what became of the renders."""

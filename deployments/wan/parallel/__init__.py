"""Parallelism: one video over several ranks (processes, each with a GPU of its own) of one node.

`mix` decides how the ranks share a render, `guidance` and `sequence` implement it in the experts, `world` connects the
ranks, `team` synchronises them, and `members` starts and supervises the other processes.
"""

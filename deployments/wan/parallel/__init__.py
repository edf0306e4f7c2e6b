"""Parallelism: one video over several ranks (processes, each with a GPU of its own) of one node.

`mix` decides how the ranks share a render, `guidance` and `sequence` carry it out in the experts, `world` connects the
ranks, `team` keeps them in step, and `members` starts and watches the other processes.
"""

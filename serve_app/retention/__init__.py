"""Retention: ended requests are removed by age and by total size, and orphaned files are removed.

sweeper.py    one sweep, run by the janitor (in one process, by a lease) or by `wan-lora sweep`
orphans.py    which files belong to no request
rules.py      the args as values
"""

"""Retention: what has ended is removed by age and by size, and files that no request knows are swept up.

sweeper.py    one sweep, of whoever holds the lease or of `wan-lora sweep`
orphans.py    which files nobody needs
rules.py      what the args say
"""

"""Webhooks (Standard Webhooks): events of a request are sent to its client, signed, in order, at least once.

    signing.py    the secret of each tenant, and the signature of a message
    delivery.py   one attempt at a delivery, and when the next one is due
    worker.py     the loop that makes them, in one process at a time

The events come from the store (`serve_app.jobs.outbox`), where the transaction of each change of state writes them.
"""

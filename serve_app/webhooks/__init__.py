"""Webhooks (Standard Webhooks): clients hear what becomes of their requests, signed, in order, at least once.

    signing.py    the secret of each tenant, and the signature of a message
    delivery.py   one attempt at a delivery, and when the next one is due
    worker.py     the loop that makes them, in one process at a time

What is to be told is in the store (`serve_app.jobs.outbox`), written with the change of state itself.
"""

"""The job store: durable requests and renders, their states, leases and results. Enter by `store.JobStore`."""

"""The job store: durable requests and renders, their states, leases and results. Entry point: `store.JobStore`."""

"""A picture of the dashboard: a service under load, a real Prometheus, and its answers to the panels' questions."""

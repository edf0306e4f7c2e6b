"""What operators see of the actors: Prometheus metrics, as observers of a render's life."""

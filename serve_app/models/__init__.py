"""What the service knows of a model before it loads it."""

"""The Ray Serve deployments (actors): Ingress, Dispatcher, Generator, and the Wan 2.2 runtime."""

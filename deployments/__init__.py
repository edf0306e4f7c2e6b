"""What runs on the cluster: Ingress, Dispatcher, Generator, and the Wan 2.2 runtime."""

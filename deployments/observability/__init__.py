"""Observability: Prometheus metrics, logs and traces (OpenTelemetry), as observers of the life cycle of renders."""

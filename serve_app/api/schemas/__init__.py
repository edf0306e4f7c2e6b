"""Pydantic models of the HTTP API: what clients send and get, documented field by field."""

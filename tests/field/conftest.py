"""Fixtures of the actors' tests: what users see of a full disk is what a Generator and a Dispatcher do."""

from tests.deployments.conftest import bench, plan

__all__ = ["bench", "plan"]

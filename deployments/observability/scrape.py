"""Metrics endpoint: relays the metrics that Ray's agent on this node exports for Prometheus.

Example:
    answer = await NodeMetrics()()  # bytes, in Prometheus' text format

Ray chooses a free port for its agent, so a scrape config cannot name it; the service's own port is known.
"""

import asyncio

import httpx2
import ray

from serve_app.errors import MetricsUnavailable

_TIMEOUT_S = 5.0


class NodeMetrics:
    """Asks the metrics agent of the node that this process runs on. Ray must run."""

    def __init__(self) -> None:
        self._client = httpx2.AsyncClient(timeout=_TIMEOUT_S, trust_env=False)  # the agent is local: use no proxy
        self._address: str | None = None

    async def __call__(self) -> bytes:
        """Return the metrics of all Ray processes of this node.

        Raises:
            MetricsUnavailable: the agent does not answer.
        """
        try:
            if self._address is None:
                self._address = await asyncio.to_thread(_agent)
            answer = await self._client.get(self._address)
            answer.raise_for_status()
        except httpx2.HTTPError as error:
            raise MetricsUnavailable(f"Ray's metrics agent on this node does not answer: {error!r}") from error
        return answer.content


def _agent() -> str:
    """Return the URL of this node's agent. Blocking."""
    this = ray.get_runtime_context().get_node_id()
    for node in ray.nodes():
        if node["NodeID"] == this and node["MetricsExportPort"]:
            return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    raise MetricsUnavailable("Ray exports no metrics on this node")

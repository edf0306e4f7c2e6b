"""Trace context (W3C Trace Context): a span for each POST, whose context is stored with what it accepts.

A client's own `traceparent` header is continued. `deployments.observability.tracing` makes the other spans of a render.
"""

from opentelemetry.propagate import extract, inject
from opentelemetry.trace import SpanKind, TracerProvider, get_current_span
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.api.access_log import entry_of


class TracedPosts:
    """ASGI middleware that opens a span for each POST. Reads are frequent and short, so they are not traced."""

    def __init__(self, app: ASGIApp, provider: TracerProvider) -> None:
        """Send spans through `provider`."""
        self._app = app
        self._tracer = provider.get_tracer("serve_app.api")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        context = extract(dict(Headers(scope=scope)))
        # The path of the route, without ids: else there would be one span name for each request.
        with self._tracer.start_as_current_span("POST", context, kind=SpanKind.SERVER) as span:
            await self._app(scope, receive, send)
            span.update_name(f"POST {getattr(scope.get('route'), 'path', '')}".strip())
            span.set_attributes({"wan.request": entry_of(scope).request_id, "wan.code": entry_of(scope).code})


def current_traceparent() -> str | None:
    """Return the context of the span around this call, as the header `traceparent` has it; None if there is none."""
    if not get_current_span().get_span_context().is_valid:
        return None
    carrier: dict[str, str] = {}
    inject(carrier)
    return carrier.get("traceparent")

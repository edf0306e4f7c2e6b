"""HTTP methods HEAD (for every GET) and OPTIONS, and the header Allow (RFC 9110, sections 9.3.2, 9.3.7, 10.2.1)."""

from collections.abc import Sequence

from fastapi import FastAPI, Response
from fastapi.routing import APIRoute
from starlette.datastructures import MutableHeaders
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.errors import MethodNotAllowed


def answer_all_methods(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Add HEAD and OPTIONS to the paths of `app`, which has these routes."""
    found = [route for route in [*routes, *app.routes] if isinstance(route, APIRoute | Route)]
    for route in found:
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()):
            # Calls the endpoint itself, so that a file response knows that only its headers are wanted.
            app.add_api_route(
                route.path,
                route.endpoint,
                methods=["HEAD"],
                include_in_schema=False,
                response_class=route.response_class,
            )
    app.add_middleware(Methods, routes=found)


class Methods:
    """ASGI middleware that answers OPTIONS, completes the header Allow of a 405, and leaves the body out for HEAD."""

    def __init__(self, app: ASGIApp, routes: Sequence[APIRoute | Route]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS" and (allowed := self._allowed(scope)):
            await Response(status_code=204, headers={"Allow": allowed})(scope, receive, send)
        else:
            await self._app(scope, receive, self._completed(scope, send))

    def _completed(self, scope: Scope, send: Send) -> Send:
        async def complete(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == MethodNotAllowed.status:
                MutableHeaders(scope=message)["Allow"] = self._allowed(scope)
            elif message["type"] == "http.response.body" and scope["method"] == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        return complete

    def _allowed(self, scope: Scope) -> str:
        """Return the methods of the request's path, as the header Allow has them; empty for a path of no route."""
        methods = {
            method
            for route in self._routes
            if route.matches(scope)[0] is not Match.NONE
            for method in route.methods or ()
        }
        implied = ({"HEAD"} if "GET" in methods else set()) | ({"OPTIONS"} if methods else set())
        return ", ".join(sorted(methods | implied))

"""Events of requests (server-sent events, SSE): one read of the store serves all listeners of this process."""

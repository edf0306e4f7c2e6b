"""Events of requests (server-sent events): one look at the store serves all who listen in this process."""

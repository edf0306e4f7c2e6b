"""Memory of one Generator: the planner decides where everything lies, `offload` and `host` carry it out."""

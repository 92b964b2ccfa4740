"""The servers of the local stack, processes without Docker: how each is configured, started and probed."""

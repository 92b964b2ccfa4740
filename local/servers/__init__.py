"""The servers of the local stack, each a process without Docker: how it is configured, started and asked if it is up."""

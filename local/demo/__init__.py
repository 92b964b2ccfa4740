"""The demo: a sample world, three acts on a running stack, and a check of every result."""

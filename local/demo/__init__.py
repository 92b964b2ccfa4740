"""The demo: a sample world, three acts on a running stack, and the proof of what became of each."""

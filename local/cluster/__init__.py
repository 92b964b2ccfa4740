"""`make cluster`: two or more of everything, as in production, on one machine."""

"""Health: what is open, since when, and what is wrong, in sentences."""

"""Tools for whoever works on the repository: programs that some tests use, and the audit of the pinned packages."""

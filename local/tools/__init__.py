"""Tools for developers: downloads of the programs that tests use, and the audit of the pinned packages."""

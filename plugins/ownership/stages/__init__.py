"""The tasks of a run, as plain functions over `parts.Parts`: pull, lookup, update, reindex, settle."""

"""Reconciliation: every row of `course_batch` against its document, and the other way round."""

"""The job's own memory in PostgreSQL: inbox, queue, audit trail, reports."""

"""In-memory stand-ins of the platform's systems, with their semantics as the job's clients meet them."""

"""The platform's systems, one module each: Kafka, Cassandra, the search index, its services."""

"""Sunbird's side of the local stack: its schema, stand-ins for two of its services, users and batches."""

"""Sunbird's side of the local stack: its schema, its two services as stand-ins, and a world to transfer in."""

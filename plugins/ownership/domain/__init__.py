"""Values and decisions. Pure: imports the standard library and pydantic only."""

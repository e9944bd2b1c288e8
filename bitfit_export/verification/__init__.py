"""A bundle against the reference."""

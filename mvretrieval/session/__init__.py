"""State of an open collection."""

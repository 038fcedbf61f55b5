"""Views to one vector."""

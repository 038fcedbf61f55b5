"""Render backends, one module each. `selection` chooses one and opens it."""

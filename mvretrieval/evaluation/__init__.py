"""How well a collection answers."""

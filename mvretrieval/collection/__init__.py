"""Objects on disk: the store, the index, and what fills them."""

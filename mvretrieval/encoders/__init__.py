"""Pictures and words to vectors: one file per family."""

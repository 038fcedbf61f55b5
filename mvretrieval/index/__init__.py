"""Vector indexes over object vectors, derived from the store."""

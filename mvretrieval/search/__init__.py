"""Queries and their hits, in named stages."""

"""Confidence: from a hit's cosine to the probability that it belongs to the query's class."""

"""Evaluation: protocols, metrics, significance tests, zero-shot tasks, reports and published tables."""

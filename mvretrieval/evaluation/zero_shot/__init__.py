"""Zero-shot classification and cross-modal retrieval by class names, captions and images."""

"""Zero-shot classification and cross-modal retrieval with class names, captions and images."""

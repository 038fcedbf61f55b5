"""View encoders: images and text to unit vectors, one module per family."""

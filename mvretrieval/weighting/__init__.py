"""From view vectors to an object vector: whitening, view weighting, adaptive layer, adapters, and their baselines."""

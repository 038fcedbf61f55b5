"""From view vectors to object vectors: whitening, view weighting, adapters and baselines."""

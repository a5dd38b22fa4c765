"""Training of CompoDiff on pairs of pictures and texts, and on triplets."""

"""Training of the composers: text-only training of Φ (LinCIR), and CompoDiff on pairs and triplets."""

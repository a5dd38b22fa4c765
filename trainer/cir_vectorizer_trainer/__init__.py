"""Training of the composers: text-only training of Φ (LinCIR)."""

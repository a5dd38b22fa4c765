"""Training of Φ (LinCIR) on captions alone."""

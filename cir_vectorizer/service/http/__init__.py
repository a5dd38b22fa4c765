"""HTTP around the doors: keys, limits, refusals, metrics and the description of the API."""

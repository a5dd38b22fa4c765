"""Training captions: read, cleaned and tagged."""

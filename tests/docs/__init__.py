"""Tests of the documents: their site, their code, their tables."""

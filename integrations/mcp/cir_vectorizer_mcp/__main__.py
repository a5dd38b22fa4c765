"""`python -m cir_vectorizer_mcp`: the command `cir-vectorizer mcp`."""

from cir_vectorizer_mcp.command import mcp

mcp()

"""Edits made of texts: a reference caption, the words of a change, and the caption that it leads to."""

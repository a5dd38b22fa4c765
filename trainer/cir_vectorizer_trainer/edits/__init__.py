"""Edits made from captions: a reference caption, the words of a change, and the target caption."""

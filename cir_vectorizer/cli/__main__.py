"""`python -m cir_vectorizer.cli` is `cir-vectorizer`."""

from cir_vectorizer.cli import main

main(prog_name="cir-vectorizer")

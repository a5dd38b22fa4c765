"""The papers' benchmarks: one file for each reads its annotations and scores rankings; `running` asks a model for them."""

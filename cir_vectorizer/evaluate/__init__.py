"""Evaluation: figures of rankings, the papers' benchmarks, and a customer's own catalog and judged queries.

Importing this package loads no torch; a model comes as an argument, a `Vectorizer`.
"""

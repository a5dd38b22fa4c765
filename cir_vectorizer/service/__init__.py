"""The inference container: one HTTP service that Weaviate, Qdrant and applications all talk to."""

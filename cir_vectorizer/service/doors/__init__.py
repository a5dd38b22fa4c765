"""The doors: each speaks one protocol (Weaviate, Qdrant, REST, search of a collection) and passes work to the engine."""

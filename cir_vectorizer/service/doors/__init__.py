"""The doors: each speaks one protocol (Weaviate, Qdrant, REST, the search of a collection) and asks the engine."""

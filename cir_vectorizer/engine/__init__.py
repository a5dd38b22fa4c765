"""The engine: it turns many small concurrent requests into few large batches on the device.

core.py is the engine; admission.py bounds the work that may wait, batching.py holds the queues and lanes, devices.py
PyTorch's state of a thread, samples.py the warm-up's work, cache.py a cache for embeddings of known pictures; explain.py takes a query apart.
"""

from cir_vectorizer.engine.core import Answer, Engine, EngineOptions

__all__ = ["Answer", "Engine", "EngineOptions"]

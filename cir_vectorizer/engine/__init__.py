"""Many small concurrent requests become few large batches on the device.

core.py is the engine; admission.py says how much may wait, batching.py holds the queues and lanes, samples.py is what
the warm-up runs, cache.py the embeddings of known pictures; explain.py takes a query apart.
"""

from cir_vectorizer.engine.core import Answer, Engine, EngineOptions

__all__ = ["Answer", "Engine", "EngineOptions"]

"""Many small concurrent requests become few large batches on the device.

core.py is the engine; admission.py says how much may wait, batching.py holds the queues and lanes, stages.py is what
the device runs, work.py what goes in and comes out, cache.py the embeddings of known pictures; explain.py says why a
query finds what it finds.
"""

from cir_vectorizer.engine.core import Engine, EngineOptions
from cir_vectorizer.engine.work import Answer, Work

__all__ = ["Answer", "Engine", "EngineOptions", "Work"]

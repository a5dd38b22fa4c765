"""Many small concurrent requests become few large batches on the device.

core.py is the engine; admission.py says how much may wait, batching.py holds the queues and lanes, stages.py is what
the device runs, explain.py says why a query finds what it finds.
"""

from cir_vectorizer.engine.core import Answer, Engine, EngineOptions, Work

__all__ = ["Answer", "Engine", "EngineOptions", "Work"]

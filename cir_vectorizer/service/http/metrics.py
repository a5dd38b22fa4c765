"""Prometheus metrics; each app has its own registry. `docs/grafana-dashboard.json` shows them."""

import contextlib
import itertools
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from cir_vectorizer.engine.batching import Lane

disable_created_metrics()  # type: ignore[no-untyped-call]  # else each counter comes with its creation time

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """Counters, histograms and gauges of one service; also the engine's `Observer`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._gauges: dict[str, Gauge] = {}
        self._of_models: list[tuple[str, dict[str, str]]] = []
        self._requests = Counter(
            "cir_requests",
            "Requests answered, by the id of their key.",
            ["door", "status", "key"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "cir_request_seconds", "Time to answer.", ["door"], buckets=_SECONDS, registry=self.registry
        )
        self._sizes = Histogram(
            "cir_batch_size", "Pieces in a batch.", ["queue"], buckets=_SIZES, registry=self.registry
        )
        self._device = Counter(
            "cir_device_seconds",
            "Time that a device worked.",
            ["queue", "lane", "device"],
            registry=self.registry,
        )
        self._waits = Histogram(
            "cir_queue_wait_seconds", "Wait in a queue.", ["lane"], buckets=_SECONDS, registry=self.registry
        )
        self._cache = Counter("cir_cache", "Pictures looked up in the cache.", ["result"], registry=self.registry)
        self._rejected = Counter("cir_rejected", "Requests refused.", ["reason"], registry=self.registry)
        self._cut = Counter(
            "cir_cut_texts",
            "Texts that were longer than the model reads.",
            ["door"],
            registry=self.registry,
        )
        self._collections = Histogram(
            "cir_collection_seconds",
            "Time of calls to a collection, including the wait for a thread.",
            ["collection", "call"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._thumbnails = Counter("cir_thumbnails", "Thumbnails sent.", ["result"], registry=self.registry)
        self._dropped = Counter(
            "cir_dropped", "Work dropped because nobody waited for it any more.", registry=self.registry
        )

    def answered(self, door: str, status: int, key: str, seconds: float) -> None:
        """Count an answered request; `key` is the id of its key, or "none"."""
        self._requests.labels(door, str(status), key).inc()
        self._seconds.labels(door).observe(seconds)

    def rejected(self, reason: str) -> None:
        """Count a refused request; `reason` is one of a few short codes."""
        self._rejected.labels(reason).inc()

    def noted(self, door: str, count: int) -> None:
        """Count texts of a request that were cut."""
        self._cut.labels(door).inc(count)

    def batch(self, queue: str, lane: Lane, size: int, seconds: float, waits: Sequence[float], device: str) -> None:
        """Record a batch that ran."""
        name = lane.name.lower()
        self._sizes.labels(queue).observe(size)
        self._device.labels(queue, name, device).inc(seconds)
        histogram = self._waits.labels(name)
        for wait in waits:
            histogram.observe(wait)

    def dropped(self, count: int) -> None:
        """Count abandoned pieces of work that were dropped."""
        self._dropped.inc(count)

    def cache(self, hits: int, misses: int) -> None:
        """Count pictures that were looked up in the cache."""
        self._cache.labels("hit").inc(hits)
        self._cache.labels("miss").inc(misses)

    def collection(self, name: str, call: str, seconds: float) -> None:
        """Record a call to a collection; `call` is one word."""
        self._collections.labels(name, call).observe(seconds)

    def thumbnail(self, result: str) -> None:
        """Count a thumbnail that was sent: "same" (the client has it), "kept" or "made"."""
        self._thumbnails.labels(result).inc()

    def gauge(self, name: str, about: str, value: Callable[[], float], **labels: str) -> None:
        """Report what `value` returns whenever the metrics are read."""
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, about, list(labels), registry=self.registry)
        if "model" in labels:
            self._of_models.append((name, labels))
        gauge = self._gauges[name]
        (gauge.labels(**labels) if labels else gauge).set_function(value)

    def forget(self, model: str, queues: Sequence[str], devices: Sequence[str]) -> None:
        """Drop the figures of a model that is gone: its gauges, and what its queues did on the devices."""
        for name, labels in [each for each in self._of_models if each[1]["model"] == model]:
            self._gauges[name].remove(*labels.values())
            self._of_models.remove((name, labels))
        for queue in queues:
            with contextlib.suppress(KeyError):  # no batch ran
                self._sizes.remove(queue)
            for lane, device in itertools.product(Lane, devices):
                with contextlib.suppress(KeyError):
                    self._device.remove(queue, lane.name.lower(), device)

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self.registry)

"""Cost of an adapter of the text tower for composed queries: added to the weights at load, or anew at each batch.

python -m benchmarks.adapter [--model tiny] [--queries 32] [--rounds 30]

The pictures are given as vectors, so that only the composer runs. The three ways take turns, and medians are compared.
"""

import argparse
import statistics
import time

import torch

from cir_vectorizer.backbones.adapter import Adapter, AdapterSettings
from cir_vectorizer.composers.lincir import LinCIR, Phi
from cir_vectorizer.models import Vectorizer, load


class AtEachBatch(LinCIR):
    """LinCIR that adds the adapter to the weights at each batch."""

    def compose(self, plans, references):  # type: ignore[no-untyped-def]
        assert self.adapter is not None
        self.adapted = self.adapter.adapt(self.text)
        return super().compose(plans, references)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    backbone = load(arguments.model, "cpu", parts=()).backbone
    phi = Phi(backbone.dim, backbone.text.facts.width)
    adapter = Adapter(backbone.text, AdapterSettings())
    weights = sum(weight.tensor.nbytes for weight in backbone.text.layer_weights().values())
    started = time.perf_counter()
    composers = {"without": LinCIR(backbone, phi), "at load": LinCIR(backbone, phi, adapter=adapter)}
    print(f"adding it takes {time.perf_counter() - started:.3f} s and {weights / 2**20:.1f} MiB")
    composers["at each batch"] = AtEachBatch(backbone, phi, adapter=adapter)
    torch.manual_seed(0)
    asked = [
        {"image": (8 * torch.nn.functional.normalize(torch.randn(backbone.dim), dim=0)).tolist(), "text": f"is red {i}"}
        for i in range(arguments.queries)
    ]
    models = {name: Vectorizer(name, backbone, {"lincir": each}, "lincir") for name, each in composers.items()}
    works = {name: [model.plan(query) for query in asked] for name, model in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(arguments.rounds + 3):
        names = list(models)
        for name in names[turn % 3 :] + names[: turn % 3]:
            model = models[name]
            started = time.perf_counter()
            model.run(works[name])
            if turn >= 3:  # the first rounds warm up
                times[name].append(time.perf_counter() - started)
    base = statistics.median(times["without"])
    for name, taken in times.items():
        print(f"{name:14} {1000 * statistics.median(taken):8.2f} ms  {statistics.median(taken) / base:.3f} x")


if __name__ == "__main__":
    main()

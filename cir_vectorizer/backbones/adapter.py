"""Adapter of a text tower: low-rank changes of the linear maps in all its layers (LoRA, Hu et al. 2021).

Only prompts with pictures are read with it. The frozen encoder that it changes is not touched, so plain texts and
pictures have the vectors of an index without an adapter.

The changes are added to copies of the weights: once when a model is loaded, so that a query costs what it costs without
an adapter, and at every step while the adapter learns.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from cir_vectorizer.backbones.text import TextEncoder
from cir_vectorizer.errors import CheckpointError

PREFIX = "adapter."
"""Prefix of an adapter's tensors in a file that it shares with Φ."""
WHERE = "every linear map of every layer"


@dataclass(frozen=True)
class AdapterSettings:
    """Sizes of an adapter: a change is the product of two matrices, of which the inner side is `rank`, times
    `alpha / rank`."""

    rank: int = 8
    alpha: float = 8.0

    def to_record(self) -> dict[str, Any]:
        """Return the entry of a model's record."""
        return {"rank": self.rank, "alpha": self.alpha, "where": WHERE}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Read what `to_record` wrote. Raises KeyError, TypeError or ValueError if it cannot be read."""
        return cls(int(record["rank"]), float(record["alpha"]))


class Adapter(nn.Module):
    """LoRA matrices for all layers of a text tower; a new one changes nothing.

    For a weight (outputs, inputs) of p stacked maps there are `down`, (p, rank, inputs), and `up`,
    (p, outputs / p, rank).

    Args:
        text: the frozen encoder that it is for.
        settings: its sizes.
    """

    def __init__(self, text: TextEncoder, settings: AdapterSettings) -> None:
        super().__init__()
        self.settings = settings
        self.down = nn.ParameterDict()
        self.up = nn.ParameterDict()
        for name, weight in text.layer_weights().items():
            (outputs, inputs), parts = weight.tensor.shape, weight.parts
            down = torch.empty(parts, settings.rank, inputs).uniform_(-1, 1) / math.sqrt(inputs)
            self.down[_key(name)] = nn.Parameter(down)
            self.up[_key(name)] = nn.Parameter(torch.zeros(parts, outputs // parts, settings.rank))
        self.to(text.device)

    def adapt(self, text: TextEncoder) -> TextEncoder:
        """Return `text` with the changes added to its weights; gradients flow back to the adapter."""
        scale = self.settings.alpha / self.settings.rank
        changed = {}
        for name, weight in text.layer_weights().items():
            change = scale * torch.bmm(self.up[_key(name)], self.down[_key(name)]).flatten(0, 1)
            whole = torch.promote_types(weight.tensor.dtype, change.dtype)
            changed[name] = (weight.tensor.to(whole) + change.to(whole)).to(weight.tensor.dtype)
        return text.with_weights(changed)

    def tensors(self) -> dict[str, Tensor]:
        """Return its tensors for a file that it shares with Φ, under the names of the weights that they change."""
        return {
            f"{PREFIX}{_name(key)}.{side}": tensor.detach().cpu().contiguous()
            for side, tensors in (("down", self.down), ("up", self.up))
            for key, tensor in tensors.items()
        }

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` returned; names without the prefix are ignored.

        Raises:
            CheckpointError: a tensor is missing, left over or of another shape.
        """
        given = {name: tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
        own = self.tensors()
        if differing := sorted(given.keys() ^ own.keys()):
            raise CheckpointError(
                f"the adapter is for another text tower: {differing[0]} is in one of the two only; choose the backbone "
                "that it was trained for"
            )
        for name, tensor in given.items():
            if tensor.shape != own[name].shape:
                raise CheckpointError(
                    f"the adapter is for another text tower: {name} is {tuple(tensor.shape)}, not "
                    f"{tuple(own[name].shape)}; choose the backbone that it was trained for"
                )
        with torch.no_grad():
            for side, parameters in (("down", self.down), ("up", self.up)):
                for key, parameter in parameters.items():
                    parameter.copy_(given[f"{PREFIX}{_name(key)}.{side}"])


def _key(name: str) -> str:
    """Return a weight's name as torch accepts it for a parameter."""
    return name.replace(".", "/")


def _name(key: str) -> str:
    return key.replace("/", ".")

"""Training in several processes, as `torchrun` or `accelerate launch` starts them; nothing of it in a single process.

Every process holds the same weights and draws the same batch, noise and dropout. The rows that the text tower reads,
nearly all of the work, are split among them, and the embeddings are gathered. So every process computes the loss of the
whole batch, its gradients flow back through its own rows only, and their sum over the processes is the gradient of a
single process.
"""

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, distributed
from torch.utils.checkpoint import checkpoint

from cir_vectorizer.backbones import TokenRow
from cir_vectorizer.errors import ModelError

Value = TypeVar("Value")


class Reader(Protocol):
    """The part of a text encoder that losses need."""

    def encode_text(self, rows: Sequence[TokenRow], pseudo_tokens: Tensor | None = None) -> Tensor:
        """Encode rows to (n, dim); see `TextEncoder.encode_text`."""


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that a launcher has started, if it has; all but the first are silent."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # An optimiser's first step imports this module, and the defaults of its functions keep the group that then exists. The
    # threads of a kept group outlive the interpreter, which now and then aborts; so import it while there is no group.
    import_module("torch.distributed.nn.functional")
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        with ExitStack() as stack:
            if rank():
                stack.enter_context(redirect_stdout(io.StringIO()))
                stack.enter_context(redirect_stderr(io.StringIO()))
            yield
    finally:
        distributed.destroy_process_group()


def size() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Return this process's number; the first, 0, writes and prints."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def own_device(asked: str | None) -> str | None:
    """Return the device of this process: its own GPU if there are several processes and GPUs, else `asked`."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if size() > 1 and torch.cuda.is_available() else asked


def agreed(value: Value) -> Value:
    """Return the first process's value, so that all processes take the same decisions."""
    if size() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def check_equal(material: Mapping[str, str]) -> None:
    """Check that all processes are to train on the same material.

    Raises:
        ModelError: they are not.
    """
    if size() == 1:
        return
    found: list[Any] = [None] * size()
    distributed.all_gather_object(found, dict(material))
    if differing := [name for name, value in material.items() if any(each[name] != value for each in found)]:
        raise ModelError(
            f"the processes would train on different material ({differing[0]}); give each the same files and options"
        )


def sum_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Replace each gradient by its sum over the processes."""
    if size() == 1:
        return
    gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    for parameter, gradient in zip(parameters, torch.split(flat, [each.numel() for each in parameters]), strict=True):
        parameter.grad = gradient.view_as(parameter)


class SplitReader:
    """A text encoder whose rows are split among the processes, and read in parts by each.

    Args:
        text: the encoder; gradients flow back to weights that it was made of.
        parts: number of parts that are read one after the other. Each is read again when gradients flow back, so that only
            its own states are in memory.
    """

    def __init__(self, text: Reader, parts: int = 1) -> None:
        self._text = text
        self._parts = parts

    def encode_text(self, rows: Sequence[TokenRow], pseudo_tokens: Tensor | None = None) -> Tensor:
        """Encode rows to (n, dim), the same in every process."""
        shares = _split(rows, size())
        own = self._read(shares[rank()], pseudo_tokens)
        if size() == 1:
            return own
        gathered: Tensor = _Gathered.apply(own, [len(share) for share in shares])
        return gathered

    def _read(self, rows: Sequence[TokenRow], pseudo_tokens: Tensor | None) -> Tensor:
        if self._parts == 1 or not rows or not torch.is_grad_enabled():
            return self._text.encode_text(rows, pseudo_tokens)
        parts = [part for part in _split(rows, self._parts) if part]
        read = [checkpoint(self._text.encode_text, part, pseudo_tokens, use_reentrant=False) for part in parts]
        return torch.cat(read)


def _split(rows: Sequence[TokenRow], count: int) -> list[Sequence[TokenRow]]:
    ends = [len(rows) * i // count for i in range(count + 1)]
    return [rows[start:end] for start, end in pairwise(ends)]


class _Gathered(torch.autograd.Function):
    """The processes' embeddings, one after the other; gradients flow back to the own ones."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, counts: Sequence[int]) -> Tensor:
        first = sum(counts[: rank()])
        ctx.own = slice(first, first + counts[rank()])
        padded = own.new_zeros(max(counts), own.shape[1])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0][ctx.own], None

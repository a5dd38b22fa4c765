"""Saved state of a training: it is written whole or not at all, and resumed only on the same material.

A run is a function of its material, its hyperparameters and its step count: a step's random numbers depend only on
(seed, step), so on a CPU a resumed run equals an uninterrupted one bit for bit.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cir_vectorizer.errors import ModelError, first_line

_ANEW = "train anew with --overwrite in place of --resume"


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state to `path`; an older state there is replaced only when the new one is complete.

    Raises:
        ModelError: the state cannot be written.
    """
    draft = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(dict(state), draft)
        os.replace(draft, path)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError if a file cannot be opened or the disk is full
        raise ModelError(f"{path} cannot be written ({error}); make room, or correct --out") from error


def read_state(path: Path) -> dict[str, Any]:
    """Read the state at `path`; its tensors are on the CPU.

    Raises:
        ModelError: the state is missing or cannot be read.
    """
    if not path.is_file():
        raise ModelError(f"{path.parent} holds no {path.name} to resume from; run without --resume")
    try:
        state: dict[str, Any] = torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # truncated archives and foreign pickles raise many kinds
        raise ModelError(f"{path} cannot be read ({first_line(error)}); {_ANEW}") from error
    return state


def check_same_run(
    state: Mapping[str, Any],
    material: Mapping[str, str],
    refusals: Mapping[str, str],
    hyperparameters: Mapping[str, Any],
) -> None:
    """Check that a saved run may be resumed with the present material and hyperparameters.

    Args:
        state: a saved state with the keys `material` and `settings`.
        material: digests and names of everything that the run is trained on.
        refusals: for each part of the material, the error sentence (without its subject) if it differs; `{saved}` and
            `{here}` in it are replaced by the two values.
        hyperparameters: by name.

    Raises:
        ModelError: the saved run has other material or other hyperparameters.
    """
    if "material" not in state:
        raise ModelError(
            "the run was saved by release 0.1.0, which did not record everything that a run depends on, so it cannot "
            f"be resumed; {_ANEW}"
        )
    for name, here in material.items():
        if (saved := state["material"].get(name)) != here:
            raise ModelError(
                f"the saved run {refusals[name].format(saved=saved, here=here)}, or train into another --out without --resume"
            )
    for name, here in hyperparameters.items():
        if (saved := state["settings"][name]) != here:
            raise ModelError(f"the saved run had {name.replace('_', '-')} {saved}, not {here}; resume with that value")


def resume_from(path: Path, load_state: Callable[[Mapping[str, Any]], None]) -> None:
    """Read the state at `path` and pass it to a trainer's `load_state`.

    Raises:
        ModelError: the state is missing, cannot be read or belongs to another run; the message names the file.
    """
    state = read_state(path)
    try:
        load_state(state)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a module's weights on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}


def seed_of_step(seed: int, step: int) -> int:
    """Return the seed for all random numbers of a step."""
    return seed * 1_000_003 + step

"""Reader of weights files from elsewhere: it unpickles tensors only."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from cir_vectorizer.errors import CheckpointError, first_line


def read_weights(path: Path) -> Mapping[str, Any]:
    """Read the entries of a .safetensors or PyTorch file, by name.

    Raises:
        CheckpointError: the file is missing, truncated or no weights file, or holds more than tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"no weights file {path}; check the path or run `cir-vectorizer models pull`")
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated or no weights file ({first_line(error)}); download it again"
        ) from error
    except Exception as error:  # torch.load rejects foreign pickles with several kinds of UnpicklingError
        raise CheckpointError(
            f"{path} holds more than tensors and is not loaded; use a file of weights only"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds no weights by name; check that it is a checkpoint")
    return content

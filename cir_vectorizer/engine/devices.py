"""PyTorch's state of a thread and of the process: its device, its cores, and memory that can be freed."""

import gc
from collections.abc import Sequence

import torch


def device_names(places: Sequence[torch.device]) -> list[str]:
    """Return a name for each device; a device that is there twice gets a second one."""
    names: list[str] = []
    for place in places:
        name, count = str(place), sum(str(other) == str(place) for other in places[: len(names)])
        names.append(f"{name}/{count + 1}" if count else name)
    return names


def free_memory() -> None:
    """Return the memory of objects that are no longer used to the system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def use_device(place: torch.device, threads: int) -> None:
    """Let this thread run a device: kernels and buffers without a device of their own go to this one."""
    use_threads(threads)
    if place.type == "cuda":
        torch.cuda.set_device(place.index or 0)


def use_threads(count: int) -> None:
    """Let PyTorch use `count` cores from this thread; the getter is called first because it drops other threads' settings."""
    torch.get_num_threads()
    torch.set_num_threads(count)


def out_of_memory(error: Exception) -> bool:
    """Tell whether a batch was too large for the device; if so, free the memory that can be freed."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        torch.cuda.empty_cache()
        return True
    return isinstance(error, MemoryError) or "allocate memory" in str(error)

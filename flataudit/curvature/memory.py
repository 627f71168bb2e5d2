"""How much memory there is, and how much one example takes in the graph of a loss: what batches are cut by."""

import os
import resource
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

__all__ = ["free_bytes", "graph_bytes"]


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be taken: of the device's memory, or of the machine's and this process's limits on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    known = [_available(), _within(resource.RLIMIT_AS), _of_group()]
    return max(1, min(one for one in known if one is not None))


def graph_bytes(loss: Callable[[], Tensor]) -> int:
    """Bytes of all tensors that autograd keeps for one call of a loss, each storage once."""
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
        result = loss()
    del result
    return sum(sizes.values())


def _available() -> int:
    """What the machine could give without swapping; where it does not say, all of its memory."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _within(limit: int) -> int | None:
    """What a limit on address space leaves."""
    soft, _ = resource.getrlimit(limit)
    if soft == resource.RLIM_INFINITY:
        return None
    try:
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return max(1, soft - used)


def _of_group() -> int | None:
    """What a container's limit leaves (cgroup v2)."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
        return None if limit == "max" else max(1, int(limit) - used)
    except (OSError, ValueError):
        return None

"""How a worker's process is started: its command, all its variables, and what its job lets it read."""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import JsonValue

from flataudit.executors.frames import Reach
from flataudit.specs import DataSpec, Job

__all__ = ["anchored", "available_cores", "reach", "worker_command", "worker_environment", "zygote_command"]

# The whole search path is given: the worker finds what this process finds (an editable install, a user site, a
# zip), and nothing through its environment or current folder.
_START = "import sys; sys.path[:] = sys.argv[1:]; from flataudit.executors.{} import main; main()"
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def worker_command() -> tuple[str, ...]:
    """How a worker is started: isolated from user site, ``PYTHON*`` variables and current folder."""
    return _command("worker")


def zygote_command() -> tuple[str, ...]:
    """How the process that forks workers is started."""
    return _command("zygote")


def _command(module: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-c", _START.format(module), *(path for path in sys.path if os.path.isabs(path)))


def worker_environment(home: Path, threads: int, device: str) -> dict[str, str]:
    """All variables of a worker."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "TMPDIR": str(home),
        "USER": "worker",  # what libraries would look up in /etc/passwd, which cannot be read
        "LANG": "C.UTF-8",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PYTHON_REFRESH": "quiet",  # MLflow would look for git, which is a process
        **dict.fromkeys(_THREAD_VARIABLES, str(threads)),
        # NumPy's own, which starts its threads when it is imported: a process with threads can neither be confined
        # nor forked.
        "OPENBLAS_NUM_THREADS": "1",
        # Else each batch's memory is given back to the kernel and faulted in again: a third of a small network's time.
        "MALLOC_TRIM_THRESHOLD_": str(2**28),
        "MALLOC_MMAP_THRESHOLD_": str(2**28),
        # Without it ``cuda:0`` would be another GPU than this process's.
        **({"CUDA_VISIBLE_DEVICES": visible} if visible is not None and device.startswith("cuda") else {}),
    }


def available_cores() -> int:
    """Cores that this process may use: its affinity, and its control group's quota (version 2)."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def anchored(job: Job) -> Job:
    """The same job with absolute paths: the worker runs in its scratch folder."""

    def absolute(spec: DataSpec) -> DataSpec:
        path = spec.source.params.get("path")
        if not isinstance(path, str) or "://" in path:
            return spec
        source = spec.source.model_copy(update={"params": dict(spec.source.params) | {"path": os.path.abspath(path)}})
        return spec.model_copy(update={"source": source})

    return job.model_copy(
        update={"artifact": os.path.abspath(job.artifact), "data": tuple(absolute(spec) for spec in job.data)}
    )


def reach(job: Job | None, *, scratch: Path, canary: Path) -> Reach:
    """The candidate's files, every file that data, tokenizer or probes name by an absolute path, and no others."""
    bounds = Reach(scratch=str(scratch), canary=str(canary), user=os.getuid())
    if job is None:
        return bounds
    specs = (*(spec.source for spec in job.data), *job.probes)
    named = [path for spec in specs for path in _paths(spec.params)]
    if job.tokenizer is not None and job.tokenizer.path is not None:
        named.append(job.tokenizer.path)
    more = {
        "readable": (job.artifact, *named),
        "code": () if job.architecture is None else (os.path.abspath(job.architecture.path or "."),),
        "graphics": job.device.startswith("cuda"),
    }
    return bounds.model_copy(update=more)


def _paths(value: "JsonValue | Mapping[str, JsonValue]") -> Iterator[str]:
    if isinstance(value, str) and os.path.isabs(value) and os.path.exists(value):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _paths(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _paths(inner)

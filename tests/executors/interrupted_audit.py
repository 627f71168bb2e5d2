"""An audit of hanging candidates in a process of its own, to be interrupted or killed from outside."""

import sys
from pathlib import Path

from flataudit.executors import process
from flataudit.specs import Budget, Job


def main(strange_worker: str, folder: str) -> None:
    job = Job.model_validate_json(Path(folder, "job.json").read_bytes())
    assert job.budget == Budget(seconds=100)
    process.worker_command = lambda: (sys.executable, "-I", strange_worker)
    process.warm_start = lambda *_: None
    process.ProcessExecutor(workers=2).map([job, job, job], lambda *note: None)


if __name__ == "__main__":
    main(*sys.argv[1:])

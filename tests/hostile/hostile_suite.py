"""The hostile suite: artifacts, what each must end in, and one audit of them all beside traps.

It also runs by itself (``python hostile_suite.py FOLDER``), to be started as another user.
"""

import contextlib
import json
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import hostile_artifacts as make
import hostile_formats as formats
import numpy as np
from hostile_attacks import source

from flataudit.errors import ModelError
from flataudit.evidence import Candidate, Examined
from flataudit.executors.process import ProcessExecutor
from flataudit.manifest import manifest_digest
from flataudit.specs import Budget, DataSpec, Job, Spec

DISK = 32 * 2**20
VARIABLE = "AWS_SECRET_ACCESS_KEY"
Traps = tuple[str, str, int, str, str, str]


@dataclass(frozen=True)
class Case:
    """One candidate."""

    name: str
    build: Callable[[Path, Traps], None]
    outcome: str | None = "measured"
    """None: the parent refuses it, so that no worker gets it; any end will do."""
    reason: str = ""
    """In what is said of it."""
    note: str = ""
    """In what is noted of its attempts, where the kernel tells."""
    admission: str = "carries code"
    """What the parent finds in its files before a worker opens them."""
    trust: bool = True
    flavour: str = "pytorch"
    seconds: float = 60.0
    memory: int = 5 * 2**30


def code(attack: str, way: Callable[[Path, str], None] = make.pickled, **more: object) -> Case:
    """An attack by one way in."""

    def build(folder: Path, traps: Traps) -> None:
        way(folder, source(attack, traps))

    return Case(f"{attack} by {way.__name__}", build, **more)  # type: ignore[arg-type]


def data(name: str, build: Callable[..., None], reason: str, *arguments: str, **more: object) -> Case:
    """Files that claim to be data."""

    def built(folder: Path, traps: Traps) -> None:
        build(folder, *(traps[0] if argument == "canary" else argument for argument in arguments))

    about = {"outcome": "failed", "reason": reason, "trust": False, "admission": "no code found"}
    return Case(name, built, **{**about, **more})  # type: ignore[arg-type]


_FUNCTIONS = (make.loader_module, make.shadowing_module, make.model_from_code, make.pickled_function)
_CODE = "a format that is data only"
_REFUSED = {"admission": "refused"}
ATTACKS = (
    code("read_files"),
    code("read_environment"),
    code("open_sockets", note="open a socket (socket)"),
    code("write_outside"),
    code("orphans", note="start a process (clone)"),
    code("run_programs", note="start a process"),
    code("rewrite_itself"),
    code("change_modes"),
    code("kill_others", note="look into another process (kill)"),
    code("kernel_calls", note="use io_uring"),
    code("memory_bomb", outcome="failed", reason="MemoryError"),
    code("disk_bomb", outcome="failed", reason="GiB on disk"),
    code("nameless_disk_bomb", outcome="failed", reason=""),
    code("file_bomb", outcome="failed", reason="GiB on disk"),
    code("output_bomb", outcome="over_budget", seconds=1.0),
    code("time_bomb", outcome="over_budget", seconds=1.0),
    code("processor_bomb", outcome="over_budget", seconds=1.0),
    code("thread_bomb"),
    code("babble", outcome="failed", reason="cannot be trusted"),
    code("exit", outcome="failed", reason="exit with code 0"),
    code("exit_politely", outcome="failed", reason="SystemExit"),
    code("crash", outcome="failed", reason="crash (SIGSEGV)"),
    code("nothing"),
    code("nothing", make.stateful, outcome="failed", reason="the same answer twice"),
)
REFUSED = (
    code("write_outside", outcome="failed", reason=_CODE, trust=False),
    code("write_outside", make.pickle_in_pt2, outcome="failed", reason="data only", trust=False),
)
FUNCTIONS = (
    *(code("open_sockets", way, note="open a socket", flavour="python_function") for way in _FUNCTIONS),
    code("nothing", make.loader_module, flavour="python_function"),
    *(code("write_outside", way, flavour="python_function") for way in _FUNCTIONS),
    *(
        code("write_outside", way, flavour="python_function", trust=False, outcome="failed", reason=_CODE)
        for way in _FUNCTIONS
    ),
)
DATA = (
    data("foreign operator", make.foreign_operator, "data only"),
    data("not a number", partial(make.exported, wrong="nan"), ""),
    data("looks at its neighbours", partial(make.exported, wrong="neighbours"), "do not depend on the other examples"),
    # Its calls are counted nowhere: each starts from the state that was exported.
    data("counts its calls", partial(make.exported, wrong="stateful"), "", outcome="measured"),
    data("random", partial(make.exported, wrong="random"), "the same answer twice"),
    data("archive bomb", make.archive_bomb, "", memory=2 * 2**30, **_REFUSED),
    data("YAML bomb", make.yaml_bomb, "a YAML alias", **_REFUSED),
    data("YAML that runs", make.yaml_code, "MLmodel", **_REFUSED),
    data("deep YAML", make.deep_yaml, "levels", **_REFUSED),
    data("path upwards", make.outside, "leaves it", "../../../../../etc", **_REFUSED),
    data("absolute path", make.outside, "leaves it", "/etc", **_REFUSED),
    data("absolute path to the canary", make.outside, "leaves it", "canary", **_REFUSED),
    data("path with a null", make.outside, "null byte", "data\0", **_REFUSED),
    data("link", make.linked, "a link or a device", "canary", **_REFUSED),
    data("pipe", make.pipe, "a link or a device", **_REFUSED),
    data("an exabyte declared", make.huge_declaration, ""),
    data(
        "unknown flavour",
        make.exported,
        "not yet audited",
        flavour="<script>alert(1)</script>",
        outcome="not_applicable",
    ),
    data('<script>"|\u202e\x1b[2J\n../../name', make.exported, "", outcome="measured"),
    data("control", make.exported, "", outcome="measured"),
)
_OUTSIDE = "external data"
_ONNX = {"flavour": "onnx", **_REFUSED}
FORMATS = (
    data("an honest graph", formats.honest_onnx, "", outcome="measured", flavour="onnx"),
    data("weights of another file", formats.onnx_elsewhere, _OUTSIDE, "canary", **_ONNX),
    data("weights above", partial(formats.onnx_elsewhere, location="../../canary"), _OUTSIDE, **_ONNX),
    data("weights in the graph", partial(formats.onnx_elsewhere, location="model.onnx"), "", **_ONNX),
    data("weights behind a link", formats.onnx_link, "", "canary", **_ONNX),
    data("weights of a pipe", formats.onnx_pipe, "", **_ONNX),
    data("weights without end", partial(formats.onnx_place, offset="0", length="9" * 18), _OUTSIDE, **_ONNX),
    data("weights past the end", partial(formats.onnx_place, offset="9" * 18, length="32"), _OUTSIDE, **_ONNX),
    data("weights before the start", partial(formats.onnx_place, offset="-8", length="32"), "offset", **_ONNX),
    data("weights that are huge", formats.onnx_huge, "bytes", **_ONNX),
    data("operator of a library", formats.onnx_library, "evil::Run", flavour="onnx", admission="carries code"),
    data("operator that runs Python", formats.onnx_python, "PythonOp", flavour="onnx", admission="carries code"),
    data("estimator and a function", formats.skops_function, "also holds", flavour="sklearn", admission="carries code"),
    data("estimator with a spoofed name", formats.skops_spoofed, "", flavour="sklearn", admission="carries code"),
    code("write_outside", formats.pickled_constants, outcome="failed", reason="data only", trust=False),
    data("program with a library", formats.compiled, "data only", admission="carries code"),
    data("two headers", formats.two_headers, "", outcome=None, **_REFUSED),
    data("a zip64 lie", formats.zip64_lie, "", outcome=None, **_REFUSED),
    data("two directories", formats.two_directories, "", outcome=None, **_REFUSED),
)
CASES = (*ATTACKS, *REFUSED, *FUNCTIONS, *DATA, *FORMATS)


@dataclass
class Outside:
    """What must stay as it is."""

    folder: Path
    secret: str
    server: socket.socket
    unexpected: list[str] = field(default_factory=list)

    def look(self) -> list[str]:
        """What a candidate has done to it."""
        found = [f"marker {path.name}" for path in (self.folder / "markers").iterdir()]
        if (self.folder / "canary").read_text() != self.secret:
            found.append("the canary was changed")
        with contextlib.suppress(BlockingIOError):
            self.server.accept()[0].close()
            found.append("a connection")
        return found


@contextlib.contextmanager
def outside() -> Iterator[Outside]:
    """A canary file, a folder that all may write to, a server, and a canary in this process's environment."""
    secret = f"canary-{secrets.token_hex(16)}"
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder, socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        Path(folder).chmod(0o755)
        (Path(folder) / "canary").write_text(secret)
        (Path(folder) / "canary").chmod(0o666)
        (Path(folder) / "markers").mkdir()
        (Path(folder) / "markers").chmod(0o777)
        before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = secret
        try:
            yield Outside(Path(folder), secret, server)
        finally:
            os.environ.pop(VARIABLE)
            if before is not None:
                os.environ[VARIABLE] = before


def jobs(cases: Sequence[Case], folder: Path, traps: Outside) -> list[Job]:
    """The artifacts, written, and a job for each."""
    inputs = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    np.savez(folder / "validation.npz", x=inputs, y=(inputs[:, 0] > 0).astype(np.int64))
    return [_job(case, folder / str(number), traps, number) for number, case in enumerate(cases)]


def _job(case: Case, artifact: Path, traps: Outside, number: int) -> Job:
    port: int = traps.server.getsockname()[1]
    file = str(artifact.parent / "validation.npz")
    where = (str(traps.folder / "canary"), str(traps.folder / "markers"), port, str(artifact), file, "x")
    case.build(artifact, where)
    digest = None
    with contextlib.suppress(ModelError):
        digest = manifest_digest(artifact)
    called = Candidate(name=case.name, version=str(number), uri="models:/m/1", flavour=case.flavour, digest=digest)
    return Job(
        candidate=called,
        artifact=str(artifact),
        probes=(Spec(use="accuracy"),),
        data=(DataSpec(name="validation", role="validation", source=Spec(use="npz", params={"path": file})),),
        budget=Budget(seconds=case.seconds, memory_bytes=case.memory),
        trust=case.trust,
    )


def audited(todo: Sequence[Job], **params: object) -> list[Examined]:
    """One audit of all, two at a time, by forks of one process."""
    executor = ProcessExecutor(**{"grace": 1.0, "disk_bytes": DISK, "workers": 2, **params})  # type: ignore[arg-type]
    return executor.map(todo, lambda *note: None)


def wrong(case: Case, one: Examined, *, told: bool) -> str | None:
    """How a candidate's end differs from what is expected; ``told``: attempts are noted on this machine."""
    accuracy = one.evidence["validation_accuracy"]
    reason, notes = str(accuracy.reason or ""), "; ".join(one.evidence.notes)
    if case.outcome not in (None, accuracy.outcome.value) or case.reason not in reason:
        return f"{case.name}: {accuracy.outcome.value}, {reason}; {notes}"
    if told and case.note not in notes:
        return f"{case.name}: no note of {case.note!r} in {notes!r}"
    return None


def main(folder: str) -> None:
    """Print what went wrong, as JSON."""
    tried = {"memory_bomb by pickled", "time_bomb by pickled", "nothing by pickled", "link", "pipe"}
    cases = [case for case in (*ATTACKS, *DATA) if case in ATTACKS[:10] or case.name in tried]
    with outside() as traps:
        todo = jobs(cases, Path(folder), traps)
        found = audited(todo)
        faults = [fault for case, one in zip(cases, found, strict=True) if (fault := wrong(case, one, told=False))]
        leaked = [one.evidence.candidate.name for one in found if traps.secret in one.evidence.model_dump_json()]
        isolation = sorted({json.dumps(dict(one.evidence.isolation)) for one in found})
        print(json.dumps({"user": os.getuid(), "faults": faults + traps.look(), "leaked": leaked, "kept": isolation}))


if __name__ == "__main__":
    main(sys.argv[1])

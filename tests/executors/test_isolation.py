"""What a machine cannot enforce is refused before anything starts, and said with what to change."""

import os
from pathlib import Path

import pytest

from flataudit import plugins
from flataudit.errors import ConfigurationError, PluginError
from flataudit.evidence import Outcome
from flataudit.executors import process
from flataudit.executors.frames import SelfTest
from flataudit.executors.isolation import KINDS, demand, enforceable, isolation, measured
from flataudit.executors.local import LocalExecutor
from flataudit.executors.process import ProcessExecutor
from flataudit.sandbox import landlock, seccomp
from flataudit.specs import Job


@pytest.fixture
def old_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a kernel with neither Landlock nor filters of system calls."""
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    monkeypatch.setattr(seccomp, "available", lambda: False)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_that_is_not_enforced_is_refused_by_name(kind: str) -> None:
    with pytest.raises(ConfigurationError, match=f"does not enforce {kind};"):
        demand((kind,), isolation(), where="here")  # type: ignore[arg-type]
    demand((kind,), isolation(kind), where="here")  # type: ignore[arg-type]


def test_partial_is_not_enforced() -> None:
    with pytest.raises(ConfigurationError):
        demand(("fs",), isolation() | {"fs": "partial"}, where="here")


def test_nothing_starts_with_less_than_is_demanded(
    make_job: object, monkeypatch: pytest.MonkeyPatch, old_kernel: None
) -> None:
    monkeypatch.setattr(process, "Worker", None)
    with pytest.raises(ConfigurationError, match=r"it can enforce: env, time, mem.* for net: run on Linux"):
        ProcessExecutor(minimum=("env", "net")).map([make_job("exits")], lambda *note: None)  # type: ignore[operator]
    with pytest.raises(ConfigurationError, match="it can enforce: none"):
        LocalExecutor(minimum=("env",)).map([make_job("exits")], lambda *note: None)  # type: ignore[operator]


def test_truncation_needs_the_third_version_of_landlock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 2)
    assert enforceable()["fs"] == "none"
    monkeypatch.setattr(landlock, "abi", lambda: 3)
    assert enforceable()["fs"] == "enforced"


def test_a_worker_that_finds_itself_free_does_not_begin(
    strange: Path, make_job: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The strange worker lays no layer upon itself, and says so; what this machine could do does not count."""
    monkeypatch.setattr(process, "enforceable", lambda: isolation(*KINDS))
    job: Job = make_job("exits")  # type: ignore[operator]
    (one,) = ProcessExecutor(minimum=("fs", "net")).map([job], lambda *note: None)
    accuracy = one.evidence["validation_accuracy"]
    assert accuracy.outcome is Outcome.FAILED
    assert "a worker that found itself not kept from fs, net" in str(accuracy.reason)


def test_the_self_test_overrules_and_an_unknown_variable_is_a_leak() -> None:
    found = SelfTest(environment=("PATH",), found={"fs": "enforced", "mem": "none"}, tripwire=True)
    kept = measured(isolation("env", "time", "mem"), found, {"PATH"})
    assert kept == isolation("env", "time", "fs")
    leaking = found.model_copy(update={"environment": ("PATH", "AWS_SECRET_ACCESS_KEY")})
    assert measured(isolation("env"), leaking, {"PATH"})["env"] == "none"


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(PluginError, match="minimum"):
        plugins.make("executors", "process", {"minimum": ["everything"]})


@pytest.mark.parametrize("name", ["local", "process"])
def test_doctor_finds_them_well(name: str) -> None:
    assert all(check.ok for check in plugins.make("executors", name).check())  # type: ignore[attr-defined]


def test_doctor_says_what_cannot_be_enforced(strange: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = SelfTest(environment=(), found={"fs": "none", "net": "enforced"}, tripwire=False)
    monkeypatch.setattr(ProcessExecutor, "_self_tested", lambda self: found)
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    started, isolated = ProcessExecutor(minimum=("env", "fs")).check()
    assert started.ok and not isolated.ok
    assert isolated.found == "env, time, net enforced; mem, fs, proc, uid not; refused calls are not told"
    assert str(isolated.remedy).startswith("leave fs out of isolation.minimum; for fs: run on Linux 6.2 or later")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can change its user")
def test_doctor_says_how_another_user_is_had() -> None:
    assert "start flataudit as root" in str(ProcessExecutor().check()[1].remedy)


def test_doctor_says_that_no_worker_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "worker_command", lambda: ("/no/such/python",))
    (check,) = ProcessExecutor().check()
    assert not check.ok and "No such file" in check.found

import pytest

from flataudit import plugins
from flataudit.errors import ConfigurationError, PluginError
from flataudit.executors.isolation import KINDS, demand, isolation
from flataudit.executors.local import LocalExecutor
from flataudit.executors.process import ProcessExecutor


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_that_is_not_enforced_is_refused_by_name(kind: str) -> None:
    with pytest.raises(ConfigurationError, match=f"does not enforce {kind};"):
        demand((kind,), isolation(), where="here")  # type: ignore[arg-type]
    demand((kind,), isolation(kind), where="here")  # type: ignore[arg-type]


def test_partial_is_not_enforced() -> None:
    with pytest.raises(ConfigurationError):
        demand(("fs",), isolation() | {"fs": "partial"}, where="here")


def test_nothing_starts_with_less_than_is_demanded(make_job: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flataudit.executors.process.Worker", None)
    with pytest.raises(ConfigurationError, match="it can enforce: env, time, mem"):
        ProcessExecutor(minimum=("env", "net")).map([make_job("exits")], lambda *note: None)  # type: ignore[operator]
    with pytest.raises(ConfigurationError, match="it can enforce: none"):
        LocalExecutor(minimum=("env",)).map([make_job("exits")], lambda *note: None)  # type: ignore[operator]


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(PluginError, match="minimum"):
        plugins.make("executors", "process", {"minimum": ["everything"]})


@pytest.mark.parametrize("name", ["local", "process"])
def test_doctor_finds_them_well(name: str) -> None:
    assert all(check.ok for check in plugins.make("executors", name).check())  # type: ignore[attr-defined]


def test_doctor_says_what_cannot_be_enforced() -> None:
    started, isolated = ProcessExecutor(minimum=("env", "net")).check()
    assert started.ok and not isolated.ok
    assert isolated.remedy == "leave net out of isolation.minimum"


def test_doctor_says_that_no_worker_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flataudit.executors.process.worker_command", lambda: ("/no/such/python",))
    (check,) = ProcessExecutor().check()
    assert not check.ok and "No such file" in check.found

"""Entry points are the only registry of plugins."""

from importlib.metadata import EntryPoint, PackageNotFoundError

import pytest

from flataudit import plugins
from flataudit.errors import PluginError


def installed(monkeypatch: pytest.MonkeyPatch, *entries: tuple[str, str]) -> None:
    found = tuple(EntryPoint(name, value, "flataudit.probes") for name, value in entries)
    monkeypatch.setattr(plugins, "_entries", lambda group: found)


@pytest.mark.parametrize("group", plugins.GROUPS)
def test_every_built_in_plugin_loads(group: plugins.Group) -> None:
    assert plugins.names(group)
    for name in plugins.names(group):
        assert callable(plugins.load(group, name))


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(PluginError, match="did you mean accuracy"):
        plugins.load("probes", "acuracy")


def test_two_packages_that_claim_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, ("twice", "a:B"), ("twice", "c:D"))
    with pytest.raises(PluginError, match="a:B and c:D"):
        plugins.load("probes", "twice")


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    installed(monkeypatch, ("lonely", "flataudit_no_such_module:X"))
    with pytest.raises(PluginError, match="reinstall"):
        plugins.load("probes", "lonely")


def test_parameters_are_checked_when_the_plugin_is_made() -> None:
    with pytest.raises(PluginError, match="did you mean relative_error"):
        plugins.make("probes", "hessian_trace", {"relative_eror": 0.1})
    with pytest.raises(PluginError, match="greater than 0"):
        plugins.make("probes", "hessian_trace", {"relative_error": -1})


def test_an_extra_that_is_not_installed_is_no_fault_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    from flataudit import commands
    from flataudit.backends.xgboost import XgboostBackend

    def check(self: XgboostBackend) -> None:
        raise PackageNotFoundError("xgboost")

    monkeypatch.setattr(XgboostBackend, "check", check)
    found = [one for one in commands.checks(f"sqlite:///{tmp_path}/absent/mlflow.db", None) if "xgboost" in one.name]
    assert [(one.ok, one.remedy) for one in found] == [(True, "pip install 'flataudit[xgboost]'")]

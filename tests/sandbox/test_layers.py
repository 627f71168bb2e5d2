"""Limits, another user, the order of the layers, and the self-test that finds out what they withstand."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from flataudit.sandbox import apply, landlock, seccomp, surroundings

Inside = Callable[..., Mapping[str, object]]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's")
whole = pytest.mark.skipif(landlock.abi() < 3 or not seccomp.available(), reason="this machine lacks a layer")
_LIMITS = "limits.Limits(2**32, cpu_seconds=20, file_bytes=2**20)"
_APPLY = f"apply.apply(apply.Confinement(scratch, {_LIMITS}), parent=os.getppid(), listen=False)\n"
_TEST = "found.update(selftest.tested(canary, user={user}, memory=2**32))"


def test_limits_are_hard_and_never_raised(inside: Inside) -> None:
    found = inside(
        f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
limits.lay({_LIMITS})
for name in ("AS", "CPU", "FSIZE", "NOFILE", "CORE"):
    found[name] = resource.getrlimit(getattr(resource, f"RLIMIT_{{name}}"))
"""
    )
    assert found == {"AS": [2**32, 2**32], "CPU": [20, 25], "FSIZE": [2**20, 2**20], "NOFILE": [64, 64], "CORE": [0, 0]}


def test_a_free_process_finds_that_it_is_free(inside: Inside) -> None:
    found = inside(_TEST.format(user=os.getuid()))
    assert found == dict.fromkeys(("fs", "net", "proc", "uid", "mem"), "none")


@whole
def test_all_layers_together_withstand_the_self_test(inside: Inside) -> None:
    found = inside(_APPLY + _TEST.format(user=os.getuid()))
    uid = "enforced" if os.geteuid() == 0 else "none"
    assert found == {"fs": "enforced", "net": "enforced", "proc": "enforced", "mem": "enforced", "uid": uid}


@whole
@pytest.mark.parametrize(
    ("missing", "kind"),
    [("landlock.abi = lambda: 0", "fs"), ("seccomp.available = lambda: False", "net")],
)
def test_a_layer_that_is_missing_is_found_missing(inside: Inside, missing: str, kind: str) -> None:
    found = inside(missing + "\n" + _APPLY + _TEST.format(user=os.getuid()))
    assert found[kind] != "enforced"
    assert found["mem"] == "enforced"


@whole
def test_python_still_works_inside(inside: Inside) -> None:
    found = inside(
        _APPLY
        + """
import datetime, decimal, locale, sqlite3, tempfile, zoneinfo
import numpy
found["sum"] = float(numpy.ones(3).sum())
berlin = "Europe/Berlin"
found["zone"] = str(zoneinfo.ZoneInfo(berlin)) if Path("/usr/share/zoneinfo", berlin).exists() else berlin
found["random"] = len(os.urandom(4))
os.environ["TMPDIR"] = str(scratch)
with tempfile.NamedTemporaryFile() as file:
    found["temporary"] = Path(file.name).parent == scratch
found["processors"] = os.cpu_count() >= 1
attempt("passwords", lambda: Path("/etc/passwd").read_text())
attempt("parent", lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes())
attempt("self", lambda: Path("/proc/self/status").read_text())
"""
    )
    assert found == {
        **{"sum": 3.0, "zone": "Europe/Berlin", "random": 4, "temporary": True, "processors": True},
        **{"passwords": "EACCES", "parent": "EACCES", "self": "done"},
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_becomes_nobody_with_one_capability_at_most(inside: Inside) -> None:
    found = inside(
        """
found["changed"] = identity.become_nobody(scratch, [canary], confined=True)
status = Path("/proc/self/status").read_text()
found["capabilities"] = int(status.partition("CapEff:")[2].split()[0], 16) & ~0b110
found["bounding"] = int(status.partition("CapBnd:")[2].split()[0], 16)
found["own"] = scratch.stat().st_uid == os.getuid() != 0
found["groups"] = os.getgroups()
attempt("back", lambda: os.setuid(0))
"""
    )
    assert found == {"changed": True, "capabilities": 0, "bounding": 0, "own": True, "groups": [], "back": "EPERM"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_without_landlock_the_user_stays_where_another_could_not_read(inside: Inside) -> None:
    found = inside(
        """
canary.chmod(0o600)
found["changed"] = identity.become_nobody(scratch, [canary], confined=False)
found["user"] = os.getuid()
found["capabilities"] = int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16)
found.update(selftest.tested(canary, user=0, memory=None))
"""
    )
    assert (found["changed"], found["user"], found["capabilities"], found["uid"]) == (False, 0, 0, "partial")


def test_it_refuses_to_leave_a_thread_outside(inside: Inside) -> None:
    found = inside(
        f"""
import threading
end = threading.Event()
threading.Thread(target=end.wait).start()
attempt("apply", lambda: {_APPLY.strip()})
end.set()
"""
    )
    assert found == {"apply": "EBUSY"}


def test_it_refuses_to_outlive_its_parent(inside: Inside) -> None:
    assert inside(f"attempt('apply', lambda: {_APPLY.strip().replace('os.getppid()', '1234567')})") == {
        "apply": "ESRCH"
    }


def test_what_a_machine_lacks_is_said_with_what_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 2)
    monkeypatch.setattr(seccomp, "available", lambda: False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert apply.lacking().keys() == {"fs", "net", "proc", "uid"}
    assert "version 2 of Landlock" in apply.lacking()["fs"]
    monkeypatch.setattr(sys, "platform", "darwin")
    assert set(apply.lacking().values()) == {"run on Linux: other systems have no sandbox that needs no privilege"}


def test_of_an_editable_install_only_the_package_is_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("")
    (tmp_path / "secret.txt").write_text("x")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "mine", type(sys)("mine"))
    sys.modules["mine"].__file__ = str(tmp_path / "mine" / "__init__.py")
    paths = {path for path, _ in surroundings.interpreter()}
    assert tmp_path / "mine" in paths
    assert not paths & {tmp_path, tmp_path / "secret.txt", Path("/"), Path.home()}


def test_of_a_folder_of_code_only_python_is_readable(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("")
    (tmp_path / "secret.txt").write_text("x")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "private").mkdir()
    found = dict(surroundings.code(tmp_path))
    assert found == {
        tmp_path: landlock.LIST,
        tmp_path / "net.py": landlock.READ,
        tmp_path / "package": landlock.READ,
    }

"""Files outside the rules cannot be read, written, truncated or moved, and no TCP port reached."""

from collections.abc import Callable, Mapping

import pytest

from flataudit.sandbox import landlock

Inside = Callable[..., Mapping[str, object]]
pytestmark = pytest.mark.skipif(landlock.abi() < 3, reason=f"Landlock of version {landlock.abi()}")
_CONFINE = """
from flataudit.sandbox.kernel import control
(scratch / "there").write_text("x")
(outside / "readable").write_text("x")
control(38, 1)
landlock.restrict([(scratch, landlock.WRITE), (outside / "readable", landlock.READ), (Path("/nowhere"), landlock.READ),
                   (Path("/dev/null"), landlock.DEVICE), (outside, landlock.LIST)])
"""


def test_only_what_is_named_can_be_reached(inside: Inside) -> None:
    found = inside(
        _CONFINE
        + """
attempt("read", lambda: canary.read_text())
attempt("read what is named", lambda: (outside / "readable").read_text())
attempt("write what is named to read", lambda: (outside / "readable").write_text("y"))
attempt("list", lambda: os.listdir(outside))
attempt("list the root", lambda: os.listdir("/"))
attempt("write", lambda: (outside / "new").write_text("y"))
attempt("truncate", lambda: os.truncate(canary, 0))
attempt("truncate on opening", lambda: os.open(canary, os.O_RDONLY | os.O_TRUNC))
attempt("remove", lambda: canary.unlink())
attempt("link", lambda: os.link(canary, scratch / "link"))
attempt("read by a link", lambda: (os.symlink(canary, scratch / "symbolic"), (scratch / "symbolic").read_text()))
attempt("move out", lambda: os.rename(scratch / "there", outside / "there"))
attempt("execute", lambda: os.execv("/bin/true", ["true"]))
attempt("write in the scratch folder", lambda: (scratch / "new").write_text("y"))
attempt("make folders there", lambda: (scratch / "a" / "b").mkdir(parents=True))
attempt("move there", lambda: os.rename(scratch / "new", scratch / "a" / "b" / "new"))
attempt("truncate there", lambda: os.truncate(scratch / "there", 0))
attempt("pipe there", lambda: os.mkfifo(scratch / "pipe"))
attempt("the null device", lambda: Path("/dev/null").write_text("y"))
"""
    )
    allowed = {
        *("read what is named", "list", "write in the scratch folder", "make folders there", "move there"),
        *("truncate there", "the null device"),
    }
    assert {name for name, what in found.items() if what == "done"} == allowed
    assert {str(what) for name, what in found.items() if name not in allowed} <= {"EACCES", "EXDEV"}


@pytest.mark.skipif(landlock.abi() < 4, reason="no rules of TCP")
def test_tcp_is_denied_and_other_sockets_are_left_to_the_filter(inside: Inside) -> None:
    found = inside(
        _CONFINE
        + """
import socket
tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
attempt("connect", lambda: tcp.connect(("127.0.0.1", 9)))
attempt("bind", lambda: tcp.bind(("127.0.0.1", 0)))
attempt("datagram", lambda: udp.connect(("127.0.0.1", 9)))
"""
    )
    assert found == {"connect": "EACCES", "bind": "EACCES", "datagram": "done"}


@pytest.mark.skipif(landlock.abi() < 6, reason="no scopes")
def test_signals_to_the_outside_are_denied(inside: Inside) -> None:
    found = inside(
        _CONFINE
        + "attempt('parent', lambda: os.kill(os.getppid(), 0))\nattempt('self', lambda: os.kill(os.getpid(), 0))"
    )
    assert found == {"parent": "EPERM", "self": "done"}


@pytest.mark.parametrize(
    ("version", "files", "more"),
    [(1, 13, 0), (2, 14, 0), (3, 15, 0), (4, 15, 1), (5, 16, 1), (6, 16, 2), (7, 16, 2), (99, 16, 2)],
)
def test_each_version_is_asked_for_what_it_knows(version: int, files: int, more: int) -> None:
    """The kernel's table of versions; an unknown bit would be an error of the whole ruleset."""
    handled = landlock._handled(version)
    assert handled["fs"] == 2**files - 1
    assert len(handled) == 1 + more

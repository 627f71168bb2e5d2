"""Names of a pickle, by a walk that must agree with what the unpickler itself looks up."""

import io
import os
import pickle
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._weights_only_unpickler import _get_allowed_globals

from flataudit.admission.pickles import is_data, is_old_pickle, walk


class Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch marker",)


class Looked(pickle.Unpickler):
    """Writes down what the unpickler asks for, and gives a harmless thing."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self.names: list[str] = []

    def find_class(self, module: str, name: str) -> object:
        self.names.append(f"{module}.{name}")
        return lambda *_: set()


VALUES = (Runs(), [Runs(), Runs()], {"a": Runs(), "b": (1, 2.5, "x", b"y")}, print, random.Random, {1, 2}, 2**80)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_the_names_are_those_that_the_unpickler_looks_up(value: object, protocol: int) -> None:
    content = pickle.dumps(value, protocol=protocol)
    looked, found = Looked(content), walk(io.BytesIO(content))
    looked.load()
    assert set(found.names) == set(looked.names) and found.whole


def test_everything_that_torch_admits_is_data_and_nothing_else_of_it() -> None:
    assert [name for name in _get_allowed_globals() if not is_data(name)] == []
    for name in ("torch.load", "torch.hub.load", "torch._utils._import_dotted_name", "builtins.getattr", "os.system"):
        assert not is_data(name)


def test_an_old_pickle_and_text_that_is_none() -> None:
    bare = b"\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R."  # of protocol 4, without saying so
    for content in (pickle.dumps(Runs(), protocol=0), b"cos\nsystem\n(S'x'\ntR", bare):
        assert is_old_pickle(walk(io.BytesIO(content)))
    for text in (b"cloudpickle==3.0\nnumpy\n", b"conda\npython\n.", b"torch\ncuda\n", b"{}", b"tree\nversion=v4\n"):
        assert not is_old_pickle(walk(io.BytesIO(text)))


def test_a_name_from_the_memo_and_one_that_is_computed() -> None:
    memo = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x30\x30h\x00h\x01\x93."
    assert walk(io.BytesIO(memo)).names == ("posix.system",)
    computed = b"\x80\x04)\x8c\x06system\x93."
    assert walk(io.BytesIO(computed)).foreign == ("a name that is computed",)


def test_a_pickle_that_breaks_off_after_its_call() -> None:
    content = pickle.dumps(Runs(), protocol=4)[:-1] + b"\xff"
    assert walk(io.BytesIO(content)).foreign == ("posix.system",)


def test_numbers_that_only_the_unpickler_reads_are_doubtful() -> None:
    content = b"\x80\x02I0x10\n0cos\nsystem\n."
    assert walk(io.BytesIO(content)).doubtful


def test_long_arguments_take_no_memory() -> None:
    content = pickle.dumps([bytes(3 * 2**20), Runs()], protocol=4)
    assert walk(io.BytesIO(content)).foreign == ("posix.system",)
    promised = b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x"
    assert not walk(io.BytesIO(promised)).whole


def test_an_argument_longer_than_any_file(tmp_path: Path) -> None:
    """A file's position ends before the number that a length can hold."""
    (tmp_path / "x").write_bytes(b"\x80\x04\x8e" + (2**62 - 1).to_bytes(8, "little") + b"x")
    with (tmp_path / "x").open("rb") as stream:
        assert not walk(stream).whole


def test_a_state_dict_is_data() -> None:
    buffer = io.BytesIO()
    state = {"a": torch.zeros(2), "b": torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16)), "step": 3}
    torch.save(state, buffer, _use_new_zipfile_serialization=False)
    buffer.seek(0)
    while (found := walk(buffer)).whole and buffer.tell() < 500:
        assert found.foreign == ()


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda raw: b"\x80\x04" + raw)))
def test_any_bytes_are_walked(content: bytes) -> None:
    walk(io.BytesIO(content))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_changed_pickle_hides_no_name(data: st.DataObject) -> None:
    """Whatever the unpickler looks up, the walk has seen, or it says that it could not follow."""
    content = bytearray(pickle.dumps(VALUES[data.draw(st.integers(0, 3))], protocol=data.draw(st.integers(0, 5))))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    looked, found = Looked(bytes(content)), walk(io.BytesIO(content))
    try:
        looked.load()
    except Exception:  # noqa: BLE001  # most changes break it
        pass
    unseen = set(looked.names) - set(found.names)
    assert not unseen or found.doubtful or "a name that is computed" in found.names, (unseen, bytes(content))

"""What a pickle names, found by walking its operations; nothing of it is imported, built or called.

The walk keeps a stack and a memo of strings as the unpickler would, since newer protocols take the name of a global
from the stack. A pickle does its harm while it is read, so that one which breaks off after a call is as bad as a whole.
Whatever cannot be followed counts as code.
"""

import pickletools
import re
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

__all__ = ["STARTS", "Walk", "is_data", "is_old_pickle", "looks_like_pickle", "walk"]

_OPERATIONS = 2_000_000
"""The most that are walked of one pickle; some fifty make a tensor."""
_NAMES = 10_000
"""The most globals that are kept of one pickle."""
_COMPUTED = "a name that is computed"
_TEXTS = frozenset(
    {"BINSTRING", "BINUNICODE", "BINUNICODE8", "SHORT_BINSTRING", "SHORT_BINUNICODE", "STRING", "UNICODE"}
)
_CALLS = frozenset({"BUILD", "INST", "NEWOBJ", "NEWOBJ_EX", "OBJ", "REDUCE"})
_NAMING = frozenset({ord("c"), ord("i"), 0x93, 0x82, 0x83, 0x84})
"""First bytes of the operations that name a global."""
_IDENTIFIER = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_LONGEST = 2**20
"""Bytes of an argument that are read; longer ones are skipped, and are no names."""
_LONGEST_NAME = 512
"""Characters; longer texts are not kept, since millions of them may stand in a memo."""
_SKIPPED: Final = {"BINBYTES": 4, "BINBYTES8": 8, "BINSTRING": 4, "BINUNICODE": 4, "BINUNICODE8": 8, "BYTEARRAY8": 8}
"""Operations with a length before their bytes, by the length's own size."""
STARTS: Final = bytes(ord(operation.code) for operation in pickletools.opcodes if not operation.stack_before)
"""What a pickle may begin with."""
_MARK: Final = pickletools.markobject
_BY_CODE: Final = {ord(operation.code): operation for operation in pickletools.opcodes}

_DTYPES = (
    r"bfloat16|bool|bits(16|1x8|2x4|4x2|8)|complex(32|64|128)|float(16|32|64)|float[48]_\w+|u?int\d+|q(u)?int\d+(x\d+)?"
)
_KINDS = "BFloat16|Bool|Byte|Char|ComplexDouble|ComplexFloat|Double|Float|Half|Int|Long|Short|QInt32|QInt8|QUInt8"
_DATA = re.compile(
    r"(_codecs\.encode|(builtins|__builtin__)\.(bool|bytearray|bytes|complex|dict|float|frozenset|int|list|set|str|tuple)"
    r"|collections\.(Counter|OrderedDict|defaultdict)"
    rf"|torch\.({_DTYPES}|per_(channel|tensor)_\w+|device|Size|Tensor|nn\.parameter\.Parameter)"
    rf"|torch\.(cuda\.|sparse\.|cuda\.sparse\.)?({_KINDS}|QUInt2x4|QUInt4x2)(Storage|Tensor)"
    r"|torch\.storage\.(TypedStorage|UntypedStorage|_LegacyStorage)|torch\.serialization\._get_layout"
    r"|torch\._tensor\._rebuild_from_type_v2"
    r"|torch\._utils\._rebuild_(tensor(_v[23])?|parameter(_with_state)?|qtensor|sparse_tensor|nested_tensor"
    r"|meta_tensor_no_storage|device_tensor_from_(cpu_tensor|numpy)|wrapper_subclass)"
    r"|numpy\.(ndarray|dtype|dtypes\.\w+DType|(_)?core\.multiarray\.(_reconstruct|scalar)"
    r"|(_)?core\.numeric\._frombuffer))"
)
"""What torch's restricted unpickler admits, plain containers, and NumPy's arrays: nothing that has an effect."""


@dataclass(frozen=True)
class Walk:
    """What was met on the way through one pickle."""

    names: tuple[str, ...]
    """Globals, each once, in order of appearance: ``os.system``."""
    calls: bool
    """Whether anything is called, built or given a state."""
    whole: bool
    """Whether it came to its end."""
    doubtful: bool = False
    """It broke off at an operation that exists, whose argument an unpickler may yet be able to read."""
    doubtful_at_a_name: bool = False
    """That operation names a global."""
    operations: int = 0

    @property
    def foreign(self) -> tuple[str, ...]:
        """The globals that are more than data."""
        return tuple(name for name in self.names if not is_data(name))


def is_data(name: str) -> bool:
    """Whether a global is on the list of those that only make data.

    >>> is_data("torch._utils._rebuild_tensor_v2"), is_data("os.system"), is_data("torch.nn.modules.linear.Linear")
    (True, False, False)
    """
    return bool(_DATA.fullmatch(name))


def looks_like_pickle(head: bytes) -> bool:
    r"""Whether bytes begin as a pickle of protocol 2 or later; older ones have no beginning of their own.

    >>> looks_like_pickle(b"\x80\x04\x95"), looks_like_pickle(b"cos\nsystem\n")
    (True, False)
    """
    return len(head) > 2 and head[0] == 0x80 and head[1] <= 5


def walk(stream: BinaryIO) -> Walk:
    """Walk one pickle from where the stream stands; the stream then stands behind it, if it is whole.

    >>> import io, pickle
    >>> walk(io.BytesIO(pickle.dumps(print)))
    Walk(names=('builtins.print',), calls=False, whole=True, doubtful=False, doubtful_at_a_name=False, operations=8)
    """
    names: dict[str, None] = {}
    machine, calls, broken, count = _Machine(), False, -1, 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in old strings
            for count, (operation, argument) in enumerate(_operations(_Bounded(stream))):
                calls = calls or operation.name in _CALLS
                named = machine.step(operation, argument)
                if named is not None:
                    names.setdefault(named)
                if count > _OPERATIONS or len(names) > _NAMES:
                    return Walk(tuple(names), calls, whole=False, doubtful=True, operations=count)
    except _Unreadable as error:
        broken = error.code
    except (IndexError, KeyError):  # the unpickler's stack or memo would be empty too
        pass
    else:
        return Walk(tuple(names), calls, whole=True, operations=count)
    doubtful = broken in _BY_CODE
    at_a_name = doubtful and broken in _NAMING
    return Walk(tuple(names), calls, whole=False, doubtful=doubtful, doubtful_at_a_name=at_a_name, operations=count)


class _Unreadable(Exception):
    """The bytes are no operation, or its argument is damaged."""

    def __init__(self, code: int) -> None:
        self.code = code
        """-1: the file ends."""
        super().__init__(code)


class _Bounded:
    """A stream of which no argument takes more memory than a name needs."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        """So many bytes; more than the longest are an error."""
        if size > _LONGEST:
            raise ValueError("longer than a name")
        return self._stream.read(size)

    def readline(self) -> bytes:
        """A line, cut at the longest."""
        return self._stream.readline(_LONGEST)

    def skip(self, prefix: int) -> bool:
        """Go past the bytes of an argument if they are too many, by the length that stands before them."""
        at = self._stream.tell()
        size = int.from_bytes(self._stream.read(prefix), "little")
        if _LONGEST < size < 2**62:
            self._stream.seek(at + prefix + size)
            return True
        self._stream.seek(at)
        return False


def _skipped(stream: _Bounded, name: str) -> bool:
    return name in _SKIPPED and stream.skip(_SKIPPED[name])


def _line(stream: _Bounded) -> str:
    found = stream.readline()
    if not found.endswith(b"\n"):
        raise ValueError("a name without end")
    return found[:-1].decode("utf-8")


def _operations(stream: _Bounded) -> "Iterator[tuple[pickletools.OpcodeInfo, object]]":
    """As `pickletools.genops`, which does not tell at which operation it stopped."""
    while True:
        code = stream.read(1)
        operation = _BY_CODE.get(code[0]) if code else None
        if operation is None:
            raise _Unreadable(code[0] if code else -1)
        argument = None
        try:
            if operation.name in ("GLOBAL", "INST"):  # pickletools would undo escapes, which an unpickler does not
                argument = f"{_line(stream)}.{_line(stream)}"
            elif operation.arg is not None and not _skipped(stream, operation.name):
                argument = operation.arg.reader(stream)  # type: ignore[arg-type]  # it reads, and reads lines
        except (ValueError, OverflowError, IndexError, struct.error, EOFError, OSError) as error:
            raise _Unreadable(code[0]) from error  # OSError: no file is as long as the place behind the argument
        yield operation, argument
        if operation.name == "STOP":
            return


class _Machine:
    """The unpickler's stack and memo, holding strings and nothing else that is real."""

    def __init__(self) -> None:
        self._stack: list[object] = []
        self._memo: dict[object, object] = {}

    def step(self, operation: "pickletools.OpcodeInfo", argument: object) -> str | None:
        """Do one operation; the global that it names."""
        name, named = operation.name, None
        if name in ("GLOBAL", "INST"):
            named = str(argument)
        elif name == "STACK_GLOBAL":
            named = _joined(self._stack[-2], self._stack[-1])
        elif name.startswith("EXT"):
            named = f"number {argument} of the extension registry"
        if name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        else:
            self._replace(operation, self._result(name, argument))
        return named

    def _result(self, name: str, argument: object) -> object:
        if name in _TEXTS:
            return argument if isinstance(argument, str) and len(argument) <= _LONGEST_NAME else None
        if name in ("GET", "BINGET", "LONG_BINGET"):
            return self._memo[argument]
        return self._stack[-1] if name == "DUP" else None

    def _replace(self, operation: "pickletools.OpcodeInfo", result: object) -> None:
        """Take off the stack what an operation consumes, and put on what it gives."""
        taken = len(operation.stack_before)
        if _MARK in operation.stack_before or (operation.name == "POP" and self._stack[-1] is _MARK):
            while self._stack.pop() is not _MARK:
                pass
            taken = operation.stack_before.index(_MARK) if _MARK in operation.stack_before else 0
        if taken > len(self._stack):
            raise IndexError("the stack is empty")
        del self._stack[len(self._stack) - taken :]
        self._stack += [_MARK if one is _MARK else result for one in operation.stack_after]


def _joined(module: object, name: object) -> str:
    known = isinstance(module, str) and isinstance(name, str)
    return f"{module}.{name}" if known else _COMPUTED


def is_old_pickle(found: Walk) -> bool:
    """Whether a walk through bytes without a beginning was one through a pickle of protocol 0 or 1.

    Most text breaks off at once; what names a plausible global and then calls it does not.
    """
    return found.calls and any(_IDENTIFIER.fullmatch(name) and "." in name for name in found.names)

"""The look at a candidate's files before anything loads them: every file by its bytes, every flavour's settings.

Three words come out of it: ``refused``, ``carries code``, ``no code found``. The last is no promise; it says that none
of the known ways to bring code was found. What an operator of an ONNX graph or of an exported program computes is for
the backend that knows the format to say, in the worker.
"""

import os
from collections.abc import Iterator, Set
from pathlib import Path, PurePosixPath

from flataudit.admission.contents import found_in
from flataudit.admission.onnx_files import in_onnx, may_be_onnx
from flataudit.admission.pieces import ExhaustedError, Piece, Work
from flataudit.admission.settings import asked
from flataudit.errors import ModelError
from flataudit.evidence import Admission, Finding
from flataudit.mlmodel import read_mlmodel

__all__ = ["admit"]

_MOST_FINDINGS = 100
_MOST_COLLECTED = 20_000
_PICKLE_MODULES = ("cloudpickle", "dill", "mlflow.pytorch.pickle_module", "pickle", "torch")
"""What MLflow may name in ``pickle_module_info.txt``, which it imports."""


def admit(folder: Path) -> Admission:
    """What is found in the files of a snapshot (`flataudit.admission.snapshot`); nothing of them is executed."""
    found, graphs = list[Finding](), set[str]()
    try:
        described = read_mlmodel(folder)
        found += asked(described)
        if "onnx" in described.flavours:
            graphs.add(PurePosixPath(str(described.flavours["onnx"].get("data"))).as_posix())
    except ModelError as error:
        found.append(Finding(kind="refusal", path="MLmodel", what="no readable MLmodel file", detail=error.got[:300]))
    found += _in_files(folder, graphs)
    found = list({finding: None for finding in found})
    if len(found) > _MOST_FINDINGS:
        worst = Admission.of(found).findings
        more = Finding(kind=worst[0].kind, path="", what=f"{len(found) - _MOST_FINDINGS} more findings")
        found = [*worst[:_MOST_FINDINGS], more]
    return Admission.of(found)


def _in_files(folder: Path, graphs: Set[str]) -> Iterator[Finding]:
    """Of all files, until there is more than any honest artifact has."""
    work, count, name = Work(), 0, ""
    try:
        for path in sorted(folder.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                continue
            name = _name(folder, path)
            for finding in _file(name, path, graphs, work):
                count += 1
                if count > _MOST_COLLECTED:
                    raise ExhaustedError
                yield finding
    except ExhaustedError:
        yield Finding(kind="refusal", path=name[:300], what="more to look at than any honest model has")


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix().encode("utf-8", "backslashreplace").decode()


def _file(name: str, path: Path, graphs: Set[str], work: Work) -> Iterator[Finding]:
    if path.is_symlink() or not path.is_file():
        yield Finding(kind="refusal", path=name[:300], what="a link or a device")
        return
    if path.name == "pickle_module_info.txt":
        with path.open("rb") as stream:
            module = stream.read(200).decode("utf-8", "replace").strip()
        if module not in _PICKLE_MODULES:
            yield Finding(kind="code", path=name, what="a module that reads the pickle", detail=module)
    with path.open("rb") as stream:
        piece = Piece(name, stream, os.fstat(stream.fileno()).st_size, work=work)
        head = stream.read(1)
        stream.seek(0)
        yield from found_in(piece)
        claims = name in graphs or name.lower().endswith(".onnx")
        if claims or may_be_onnx(head):
            yield from in_onnx(piece, path, claims=claims)

"""Archives that are data, archives that would run code, and archives that two readers read differently."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from programs import examples, exported, job, network
from torch.export.passes import move_to_device_pass

from flataudit.backends.pt2 import read_archive
from flataudit.backends.pytorch import PyTorchBackend
from flataudit.errors import ModelError, UntrustedError

Members = dict[str, bytes]


class Bomb:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


def members(file: Path) -> Members:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(file: Path, content: Members) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, value in content.items():
            archive.writestr(name, value)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The file of an honest program, beside its MLmodel."""
    return exported(tmp_path / "m", network()) / "data" / "model.pt2"


def test_an_honest_archive_is_data_and_what_is_read_is_what_is_written(program: Path) -> None:
    found = read_archive(program)
    assert found.code is None and found.devices == ()
    with zipfile.ZipFile(found.stream) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == members(program)


def odd_member(content: Members, root: str, file: Path) -> None:
    content[f"{root}/data/constants/custom_obj_0"] = pickle.dumps(Bomb(file))


def library(content: Members, root: str, file: Path) -> None:
    content[f"{root}/data/aotinductor/model/kernel.so"] = b"\x7fELF"


def pickled_samples(content: Members, root: str, file: Path) -> None:
    stream = io.BytesIO()
    torch.save(Bomb(file), stream)
    content[f"{root}/data/sample_inputs/model.pt"] = stream.getvalue()


def pickled_weights(content: Members, root: str, file: Path) -> None:
    name = f"{root}/data/weights/model_weights_config.json"
    described = json.loads(content[name])
    first = next(iter(described["config"].values()))
    first["use_pickle"] = True
    stream = io.BytesIO()
    torch.save(Bomb(file), stream)
    content[f"{root}/data/weights/{first['path_name']}"] = stream.getvalue()
    content[name] = json.dumps(described).encode()


def evaluated_shape(content: Members, root: str, file: Path) -> None:
    name = f"{root}/models/model.json"
    text = content[name].decode()
    assert '"expr_str"' in text
    described = json.loads(text)
    replace(described, "expr_str", f"__import__('pathlib').Path({str(file)!r}).touch()")
    content[name] = json.dumps(described).encode()


def called(target: str) -> Callable[[Members, str, Path], None]:
    """A node that calls something else than arithmetic."""

    def spoil(content: Members, root: str, file: Path) -> None:
        name = f"{root}/models/model.json"
        assert b"torch.ops.aten.tanh.default" in content[name]
        content[name] = content[name].replace(b"torch.ops.aten.tanh.default", target.encode())

    return spoil


def replace(value: object, key: str, by: str) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            if name == key:
                value[name] = by
            else:
                replace(item, key, by)
    elif isinstance(value, list):
        for item in value:
            replace(item, key, by)


CALLED = ("torch.hub.load", "torch.os.system", "torch.ops.aten.from_file.default", "_operator.methodcaller", "#x:y")


@pytest.mark.parametrize(
    "spoil",
    [odd_member, library, pickled_samples, pickled_weights, evaluated_shape, *(called(target) for target in CALLED)],
)
def test_an_archive_with_code_is_refused_before_torch_opens_it(
    program: Path, tmp_path: Path, spoil: Callable[[Members, str, Path], None]
) -> None:
    content = members(program)
    spoil(content, next(iter(content)).partition("/")[0], tmp_path / "exploded")
    write(program, content)
    with pytest.raises(UntrustedError, match="data only"):
        PyTorchBackend().load(job(program.parent.parent), examples())
    assert not (tmp_path / "exploded").exists()


def test_of_two_members_with_one_name_only_the_one_that_was_read_reaches_torch(program: Path) -> None:
    content = members(program)
    name = next(name for name in content if name.endswith("model.json"))
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(program, "a") as archive:
        archive.writestr(name, b"{}")
    with zipfile.ZipFile(read_archive(program).stream) as archive:
        assert archive.namelist().count(name) == 1 and archive.read(name) == b"{}"


def test_a_flipped_byte_is_damage(program: Path) -> None:
    content = bytearray(program.read_bytes())
    position = content.find(members(program)[next(n for n in members(program) if n.endswith("weight_0"))])
    content[position] ^= 0xFF
    program.write_bytes(content)
    with pytest.raises(ModelError, match="BadZipFile: Bad CRC-32"):
        PyTorchBackend().load(job(program.parent.parent), examples())


def test_a_program_for_another_device_is_moved_here_and_says_so(program: Path) -> None:
    """The archive as it would be written on a GPU: the device is named in every description of a tensor."""
    here = PyTorchBackend().load(job(program.parent.parent), examples()).model.predict(examples().inputs)
    content = members(program)
    for name, value in content.items():
        cpu, gpu = b'{"type": "cpu", "index": null}', b'{"type": "cuda", "index": 0}'
        content[name] = value.replace(cpu, gpu) if name.endswith(".json") else value
    assert any(b"cuda" in value for value in content.values())
    write(program, content)
    loaded = PyTorchBackend().load(job(program.parent.parent), examples())
    assert loaded.notes == ("exported for cuda, moved to cpu",) and loaded.trust == "data_only"
    assert (loaded.model.predict(examples().inputs) == here).all()


def test_the_pass_that_moves_a_program_keeps_its_numbers(program: Path) -> None:
    """What a GPU would get, called on the CPU: parameters, constants and devices inside the graph."""
    found = torch.export.load(read_archive(program).stream)
    x = torch.from_numpy(examples().inputs)
    expected = found.module()(x)
    assert torch.equal(move_to_device_pass(found, "cpu").module()(x), expected)

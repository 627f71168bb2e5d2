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
    copy, code = read_archive(program)
    assert code is None
    with zipfile.ZipFile(copy) as archive:
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


@pytest.mark.parametrize("spoil", [odd_member, library, pickled_samples, pickled_weights, evaluated_shape])
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
    copy, _ = read_archive(program)
    with zipfile.ZipFile(copy) as archive:
        assert archive.namelist().count(name) == 1 and archive.read(name) == b"{}"


def test_a_flipped_byte_is_damage(program: Path) -> None:
    content = bytearray(program.read_bytes())
    position = content.find(members(program)[next(n for n in members(program) if n.endswith("weight_0"))])
    content[position] ^= 0xFF
    program.write_bytes(content)
    with pytest.raises(ModelError, match="BadZipFile: Bad CRC-32"):
        PyTorchBackend().load(job(program.parent.parent), examples())

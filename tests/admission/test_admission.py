"""What is found in artifacts of every kind, honest and not; nothing of them may run."""

import io
import json
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import artifacts as make
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flataudit.admission.archives import ArchiveLimits, tar_faults
from flataudit.admission.examining import admit
from flataudit.evidence import Admission

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own code warns while it writes


class Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch marker",)


def put(folder: Path, content: bytes, name: str = "data/x", text: str = "") -> Admission:
    make.described(folder, *([text] if text else []))
    (folder / name).write_bytes(content)
    return admit(folder)


def zipped(members: dict[str, bytes], way: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", way) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=way)
    return buffer.getvalue()


@pytest.mark.parametrize("build", make.DATA, ids=lambda build: build.__name__)
def test_data_of_every_kind(build: Callable[[Path], None], tmp_path: Path) -> None:
    found = admit(make.written(build, tmp_path / "m"))
    assert found.verdict == "no code found", found.listed("code") + found.listed("refusal")


@pytest.mark.parametrize(("build", "told"), make.CODE, ids=lambda one: getattr(one, "__name__", ""))
def test_code_of_every_kind(build: Callable[[Path], None], told: str, tmp_path: Path) -> None:
    found = admit(make.written(build, tmp_path / "m"))
    assert found.verdict == "carries code" and told in found.listed("code", 20)


def test_settings_that_are_not_followed_are_listed(tmp_path: Path) -> None:
    assert "onnx_session_options" in admit(make.written(make.onnx, tmp_path / "m")).listed("note")


PICKLE = make.pickled(Runs())
ELF = b"\x7fELF" + bytes(60)
HIDDEN = {
    "a pickle without a name": PICKLE,
    "an old one": make.pickled(Runs(), 0),
    "in a zip": zipped({"a/data.pkl": PICKLE}),
    "deflated in a zip in a zip": zipped({"b.bin": zipped({"c": PICKLE}, zipfile.ZIP_DEFLATED)}, zipfile.ZIP_DEFLATED),
    "behind a script": b"#!/bin/sh\nexit\n" + zipped({"x": PICKLE}),
    "behind numbers": bytes(64) + zipped({"x": PICKLE}),
    "as a tensor of a program": zipped({"m/data/weights/weight_0": PICKLE}),
    "compressed": zlib.compress(PICKLE),
    "after harmless ones": make.pickled(1) + make.pickled([2]) + PICKLE,
    "a library": ELF,
    "a library in a program": zipped({"m/data/aotinductor/model.so": ELF}),
    "bytecode": b"\xa7\r\r\n" + bytes(12) + b"\xe3" + bytes(20),
    "a source without a name": b"# hello\n\nimport os\nos.system('touch marker')\n",
    "an array of objects": b"\x93NUMPY\x01\x00\x76\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    + PICKLE,
    "a hub's code": b'{"\\u0061uto_map": {"AutoModel": "net.Net"}}',
    "skops of other types": zipped({"schema.json": b'{"__class__": "system", "__module__": "os", "content": {}}'}),
    "pickled weights": zipped({"m/data/weights/model_weights_config.json": b'{"config": {"a": {"use_pickle": true}}}'}),
    "pickled numbers nobody can follow": b"\x80\x02I0x10\n0cos\nsystem\n.",
}


@pytest.mark.parametrize("content", HIDDEN.values(), ids=HIDDEN)
def test_code_by_its_bytes(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert put(tmp_path / "m", content, "data/weights.safetensors").verdict == "carries code"
    assert not (tmp_path / "marker").exists()


def test_pickles_in_a_tar(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("storages")
        entry.size = len(PICKLE)
        archive.addfile(entry, io.BytesIO(PICKLE))
    assert put(tmp_path / "m", buffer.getvalue()).verdict == "carries code"


def linked() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo("a")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    return buffer.getvalue()


def overlapping() -> bytes:
    """Two entries of the directory for the bytes of one member."""
    raw = bytearray(zipped({"aa": bytes(100), "bb": bytes(100)}))
    second = raw.rindex(b"PK\x01\x02")
    raw[second + 42 : second + 46] = struct.pack("<I", 0)
    return bytes(raw)


REFUSED = {
    "a path that goes up": zipped({"../x": b""}),
    "an absolute path": zipped({"/x": b""}),
    "a backslash in a path": zipped({"a\\b": b""}),
    "a link or a device": linked(),
    "a member that lies over another": overlapping(),
    "bytes when unpacked, out of": zipped({"x": bytes(101 * 2**20)}, zipfile.ZIP_DEFLATED),
    "a zip archive that is damaged": zipped({"x": b"abc"}).replace(b"abc", b"abd"),
    "archives in archives": zipped({"a": zipped({"b": zipped({"c": zipped({"d": zipped({"e": b""})})})})}),
}


@pytest.mark.parametrize(("told", "content"), REFUSED.items(), ids=REFUSED)
def test_archives_that_no_library_writes(told: str, content: bytes, tmp_path: Path) -> None:
    found = put(tmp_path / "m", content)
    assert found.verdict == "refused" and told in found.listed("refusal")


def test_a_tar_of_links() -> None:
    entry = tarfile.TarInfo("../up")
    entry.type = tarfile.SYMTYPE
    found = {what for _, what in tar_faults([entry], 100, ArchiveLimits())}
    assert found == {"a path that goes up", "a link or a device"}


@pytest.mark.parametrize(
    "settings_of",
    [
        "pytorch: {model_data: ../../etc}",
        "pytorch: {model_data: /etc/passwd}",
        "sklearn: {pickled_model: a/../../b}",
        "python_function: {artifacts: {a: {path: ../x, uri: /home/me/x}}}",
        "python_function: {env: {conda: /etc/passwd}}",
        "pytorch: {extra_files: [{path: ~/x}]}",
        "pytorch: {code: [../x]}",
    ],
)
def test_paths_of_every_flavour_stay_inside(settings_of: str, tmp_path: Path) -> None:
    make.described(tmp_path / "m", f"flavors: {{{settings_of}}}")
    found = admit(tmp_path / "m")
    assert found.verdict == "refused" and "MLmodel" in found.listed("refusal")


TRICKS = {
    "a tag": "metadata: !!python/object/apply:os.system ['touch marker']",
    "a name as a tag": "metadata: !!python/name:os.system",
    "an unknown tag": "metadata: !flataudit x",
    "a key that is no text": "? [a, b]\n: c",
    "two documents": "---\nflavors: {}",
    "a merge": "base: &b {a: 1}\nmetadata:\n  <<: *b",
    "what is no number": "metadata: !!int none",
    "bytes that are none": "metadata: !!binary 'x'",
}


@pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS)
def test_tricks_of_yaml(trick: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make.described(tmp_path / "m", f"flavors: {{pytorch: {{model_data: data}}}}\n{trick}\n")
    assert admit(tmp_path / "m").verdict == "refused"
    assert not (tmp_path / "marker").exists()


def test_a_tag_under_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    head = "%TAG !evil! tag:yaml.org,2002:python/\n---\n"
    tagged = f"{head}flavors: {{f: {{}}}}\nm: !evil!object/apply:os.system [touch marker]\n"
    make.described(tmp_path / "m", tagged)
    assert admit(tmp_path / "m").verdict == "refused" and not (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", ["x.so", "x.so.1", "x.PTX", "m.cubin", "x.dll"])
def test_libraries_by_their_names(name: str, tmp_path: Path) -> None:
    assert put(tmp_path / "m", b"of a machine that is not known", f"data/{name}").verdict == "carries code"
    inside = put(tmp_path / "n", zipped({f"m/data/aotinductor/{name}": b"numbers"}))
    assert {found.what for found in inside.findings} == {"a compiled program", "a shared library or program"}


MEMBERS = {
    "m/data/aotinductor/model/weights": "a compiled program",
    "m/data/constants/custom_obj_0": "an object of a class that a library registers",
    "m/bytecode.pkl": "a program for torch's mobile interpreter",
    "m/code/__torch__/net.py": "a TorchScript program",
}


@pytest.mark.parametrize(("name", "what"), MEMBERS.items(), ids=MEMBERS)
def test_members_that_a_reader_runs_by_their_names(name: str, what: str, tmp_path: Path) -> None:
    """Whatever their bytes look like."""
    found = put(tmp_path / "m", zipped({name: b"1", "m/data.pkl": make.pickled({})}))
    assert found.verdict == "carries code" and what in found.listed("code")


def test_where_a_file_once_lay_is_no_path(tmp_path: Path) -> None:
    text = "flavors: {python_function: {loader_module: mlflow.pytorch, artifacts: {a: {path: a/x, uri: /home/me/x}}}}"
    make.described(tmp_path / "m", text)
    assert admit(tmp_path / "m") == Admission.of([])


@pytest.mark.parametrize(
    "settings_of",
    [
        *("loader_module: evil", "loader_module: mlflow.pyfunc.model", "loader_module: [mlflow.pytorch]"),
        *("loader_module: mlflow.pytorch.evil", "code: code", "model_code_path: x.py", "trust_remote_code: true"),
    ],
)
def test_settings_that_run_code(settings_of: str, tmp_path: Path) -> None:
    make.described(tmp_path / "m", f"flavors: {{python_function: {{{settings_of}}}}}")
    assert admit(tmp_path / "m").verdict == "carries code"


def test_links_pipes_and_no_mlmodel(tmp_path: Path) -> None:
    make.described(tmp_path / "m")
    (tmp_path / "m/data/link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "m/data/pipe")
    assert admit(tmp_path / "m").listed("refusal").count("a link or a device") == 2
    (tmp_path / "n").mkdir()
    assert admit(tmp_path / "n").verdict == "refused"


def test_a_module_that_reads_the_pickle(tmp_path: Path) -> None:
    assert put(tmp_path / "m", b"evil.module", "data/pickle_module_info.txt").verdict == "carries code"


def test_numbers_that_begin_like_something_else(tmp_path: Path) -> None:
    """A header of 640 bytes begins a safetensors file as protocol 2 begins a pickle."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).ljust(640).encode()
    assert put(tmp_path / "m", (640).to_bytes(8, "little") + header + bytes(4)).verdict == "no code found"
    weights = zipped({"m/data/7": b"\x80\x02I" + bytes(100), "m/data/8": b"MZ" + bytes(100)})
    assert put(tmp_path / "n", weights).verdict == "no code found"


def test_findings_are_bounded(tmp_path: Path) -> None:
    make.described(tmp_path / "m")
    for number in range(150):
        (tmp_path / f"m/data/{number}").write_bytes(PICKLE)
    found = admit(tmp_path / "m")
    assert len(found.findings) == 101 and found.findings[-1].what == "50 more findings"


# ── Fuzzing: any bytes have a verdict ──

SLOW = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)


def state() -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(3.0)}, buffer)
    return buffer.getvalue()


SEEDS = (state(), PICKLE, zlib.compress(PICKLE), *REFUSED.values(), *HIDDEN.values())
SMALL = tuple(seed for seed in SEEDS if len(seed) < 10_000)


@settings(max_examples=300, deadline=None, suppress_health_check=SLOW)
@given(content=st.one_of(st.binary(max_size=400), st.sampled_from(SMALL)), text=st.binary(max_size=100))
def test_random_bytes(tmp_path: Path, content: bytes, text: bytes) -> None:
    folder = tmp_path / "m"
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "MLmodel").write_bytes(b"flavors: {pytorch: {model_data: data}}\n" + text)
    (folder / "data/x").write_bytes(content)
    assert isinstance(admit(folder), Admission)


@settings(max_examples=300, deadline=None, suppress_health_check=SLOW)
@given(st.data())
def test_changed_artifacts(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(SMALL)))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))]
    folder = tmp_path / "m"
    if not folder.exists():
        make.described(folder)
    (folder / "data/x").write_bytes(content)
    assert Admission.model_validate_json(admit(folder).model_dump_json())

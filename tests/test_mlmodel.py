"""The MLmodel file: what it says, and what it may not do to who reads it."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flataudit.errors import ModelError
from flataudit.mlmodel import SignatureField, kind_of, read_mlmodel

WHOLE = """
flavors:
  python_function: {loader_module: mlflow.pytorch}
  pytorch: {model_data: data, pytorch_version: 2.13.0}
model_uuid: m-1
utc_time_created: 2026-01-01 10:00:00
metadata: {team: risk, since: 2026-01-01}
signature:
  inputs: '[{"type": "double", "name": "age", "required": true}, {"type": "string", "name": "city", "required": false}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}]'
"""


def written(folder: Path, text: str | bytes) -> Path:
    (folder / "MLmodel").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def test_everything_that_is_asked_for(tmp_path: Path) -> None:
    found = read_mlmodel(written(tmp_path, WHOLE))
    assert set(found.flavours) == {"python_function", "pytorch"}
    assert found.flavour("pytorch")["model_data"] == "data"
    assert found.metadata == {"team": "risk", "since": "2026-01-01"}
    assert found.signature is not None
    assert found.signature.inputs == (
        SignatureField(name="age", dtype="double"),
        SignatureField(name="city", dtype="string", required=False),
    )
    assert found.signature.outputs == (SignatureField(dtype="float32", shape=(-1, 3)),)
    with pytest.raises(ModelError, match="got only python_function, pytorch"):
        found.flavour("onnx")


def test_no_path_leaves_the_artifact(tmp_path: Path) -> None:
    folder = tmp_path / "artifact"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "model").write_text("x")
    (tmp_path / "secret").write_text("x")
    (folder / "link").symlink_to(tmp_path / "secret")
    found = read_mlmodel(written(folder, WHOLE))
    assert found.inside("data/model") == (folder / "data" / "model").resolve()
    for outside in ("../secret", "/etc/passwd", "link", "data/../../secret", "", None, 3, "a\0b", "absent", "x" * 9999):
        with pytest.raises(ModelError, match="artifact"):
            found.inside(outside)


@pytest.mark.parametrize(
    ("served", "own", "told"),
    [
        ("{loader_module: mlflow.onnx, data: other.onnx}", "{data: model.onnx}", "other.onnx beside model.onnx"),
        ("{loader_module: mlflow.sklearn, data: model.onnx}", "{data: model.onnx}", "got 'mlflow.sklearn'"),
        ("{loader_module: evil, data: model.onnx}", "{data: model.onnx}", "got 'evil'"),
        ("{data: model.onnx}", "{data: model.onnx}", "got None"),
    ],
)
def test_what_is_audited_must_be_what_is_served(tmp_path: Path, served: str, own: str, told: str) -> None:
    whole = f"flavors:\n  python_function: {served}\n  onnx: {own}\n"
    with pytest.raises(ModelError, match=told):
        read_mlmodel(written(tmp_path, whole)).refuse_another_served("onnx")
    honest = "flavors:\n  python_function: {loader_module: mlflow.onnx, data: model.onnx}\n  onnx: {data: model.onnx}\n"
    read_mlmodel(written(tmp_path, honest)).refuse_another_served("onnx")
    read_mlmodel(written(tmp_path, "flavors:\n  onnx: {data: model.onnx}\n")).refuse_another_served("onnx")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("flavors: &a {x: 1}\nb: *a", "a YAML alias"),
        ("a: " + "[" * 40 + "]" * 40 + "\nflavors: {}", "more than 32 levels"),
        ("a: " + "1:" * 60 + "1\nflavors: {}", "a number of more than 100 digits"),
        ("flavors: {}\n#" + "x" * 2**20, "more than 1048576 bytes"),
        ("x: 1", "no flavours"),
        ("- 1", "no flavours"),
        ("flavors: [a]", "no flavours"),
        ("flavors: {}\nsignature: {inputs: '[{]'}", "JSONDecodeError"),
        ('flavors: {}\nsignature: {inputs: \'[{"type": "tensor", "tensor-spec": {}}]\'}', "KeyError"),
        (b"flavors: {}\xff", "UnicodeDecodeError"),
        ("!!python/object/apply:os.system ['touch marker']", "ConstructorError"),
    ],
)
def test_what_is_no_mlmodel(tmp_path: Path, text: str | bytes, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        read_mlmodel(written(tmp_path, text))
    assert not Path("marker").exists()


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="an MLmodel file"):
        read_mlmodel(tmp_path)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=300), st.binary(max_size=300), st.from_regex(r"flavors: \{.*\}\n.*", fullmatch=True)))
def test_any_bytes_are_a_model_or_a_clear_refusal(tmp_path_factory: pytest.TempPathFactory, text: str | bytes) -> None:
    folder = written(tmp_path_factory.mktemp("m"), text.encode(errors="replace") if isinstance(text, str) else text)
    try:
        found = read_mlmodel(folder)
    except ModelError:
        return
    assert isinstance(found.flavours, dict)


def test_kinds_of_declared_types() -> None:
    kinds = {"number": ("double", "float", "float64"), "integer": ("long", "int8", "uint8"), "boolean": ("bool",)}
    for kind, names in kinds.items():
        assert {kind_of(name) for name in names} == {kind}
    assert kind_of("binary") is None

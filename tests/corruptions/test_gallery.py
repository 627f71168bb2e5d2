"""What the commands print and draw."""

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from flataudit import cli_corruptions, plugins
from flataudit.corruptions import gallery
from flataudit.corruptions.catalogue import KINDS
from flataudit.corruptions.png import png
from flataudit.errors import ConfigurationError

CASES = [(data, kind) for data, kinds in KINDS.items() for kind in kinds]


def _read(file):
    """A reader of unfiltered PNG files, checksums included."""
    assert file[:8] == b"\x89PNG\r\n\x1a\n"
    place, content = 8, {}
    while place < len(file):
        (length,) = struct.unpack(">I", file[place : place + 4])
        name, body = file[place + 4 : place + 8], file[place + 8 : place + 8 + length]
        assert struct.unpack(">I", file[place + 8 + length : place + 12 + length])[0] == zlib.crc32(name + body)
        content[name] = body
        place += 12 + length
    width, height, depth, colour, *_ = struct.unpack(">IIBBBBB", content[b"IHDR"])
    assert depth == 8
    lines = np.frombuffer(zlib.decompress(content[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape((height, width, 3) if colour == 2 else (height, width))


@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 3)])
def test_pictures_can_be_read_again(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    assert np.array_equal(_read(png(pixels)), pixels)
    pillow = pytest.importorskip("PIL.Image")
    import io

    assert np.array_equal(np.asarray(pillow.open(io.BytesIO(png(pixels)))), pixels)


@pytest.mark.parametrize(("data", "kind"), CASES)
def test_every_kind_can_be_shown(data, kind):
    shown = gallery.show(kind, data)
    assert (shown.data_kind, shown.kind) == (data, kind) and shown.effects == tuple(sorted(shown.effects))
    assert shown.effects[0] > 0 and shown.printed.strip() and (shown.picture is None) == (data != "image")


def test_the_picture_is_the_clean_images_and_their_copies():
    images = np.random.default_rng(0).integers(0, 256, (9, 1, 10, 12)).astype(np.uint8)
    images.flat[:2] = 0, 255
    picture = _read(gallery.show("contrast", "image", inputs=images).picture)
    assert picture.shape == (6 * 12 - 2, 6 * 14 - 2)
    assert np.array_equal(picture[12:22, :12], images[1, 0])
    spreads = [picture[:10, 14 * k : 14 * k + 12].std() for k in range(6)]
    assert spreads == sorted(spreads, reverse=True)


def test_unknown_names():
    with pytest.raises(ConfigurationError, match="did you mean rotate"):
        gallery.show("rotat")
    with pytest.raises(ConfigurationError, match="kind image"):
        gallery.show("typos", "image")
    with pytest.raises(ConfigurationError, match="did you mean table"):
        gallery.listed("tabel")


@pytest.fixture
def run(monkeypatch):
    """The command line with its own entry points, whether or not this checkout is installed with them."""
    own = {"corruptions-list": gallery.listed, "corruptions-show": gallery.show}
    installed = plugins.load
    monkeypatch.setattr(plugins, "load", lambda group, name: own[name] if name in own else installed(group, name))
    app = typer.Typer()
    cli_corruptions.register(app)
    app.command("other")(lambda: None)

    def call(*words):
        found = CliRunner().invoke(app, ["corruptions", *words])
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        return found.output

    return call


def test_list(run):
    lines = run("list").splitlines()
    assert len(lines) == len(CASES) and any("*noise" in line for line in lines)
    document = json.loads(run("list", "--data-kind", "series", "--json"))
    assert document["schema"] == "flataudit/corruptions/1"
    assert [row["kind"] for row in document["corruptions"]] == list(KINDS["series"])


def test_show(run, tmp_path):
    out, data = tmp_path / "rotate.png", tmp_path / "own.npz"
    np.savez(data, x=np.random.default_rng(0).random((20, 1, 8, 8)))
    assert "wrote" in run("show", "rotate", "--out", str(out)) and _read(out.read_bytes()).shape[2] == 3
    text = run("show", "typos")
    assert "quick brown" in text and "effect" in text and "share of the characters" in text
    document = json.loads(run("show", "blur", "--data", str(data), "--calibrate", "--json"))
    assert document["effects"][1] == pytest.approx(0.2, abs=0.02) and document["told"]["channels"] == "first (inferred)"
    with pytest.raises(ConfigurationError, match="images for a picture"):
        run("show", "typos", "--out", str(out))


@pytest.mark.parametrize("data", KINDS)
def test_the_documentation_has_each_kind_with_its_strengths(data):
    page = (Path(__file__).parents[2] / "docs" / "corruptions.md").read_text(encoding="utf-8")
    for row in gallery.listed(data):
        name = f"`{row['kind']}`" + (" *" if row["default"] else "")
        amounts = ", ".join(f"{amount:g}" for amount in row["amounts"])
        assert f"| {name} | {row['summary'].rstrip('.')} | {amounts} |" in page

import importlib.util
import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from flataudit import terminal
from flataudit.contracts import Check

_SPEC = importlib.util.spec_from_file_location("terminal_audits", Path(__file__).parent / "report" / "audits.py")
assert _SPEC is not None and _SPEC.loader is not None
audits = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = audits
_SPEC.loader.exec_module(audits)


@pytest.fixture
def console() -> Iterator[Console]:
    with io.StringIO() as out:
        yield Console(file=out, width=140, highlight=False, force_terminal=False)


def shown(console: Console) -> str:
    out = console.file
    assert isinstance(out, io.StringIO)
    return out.getvalue()


def test_the_verdict_comes_first_and_every_candidate_has_a_line(console: Console) -> None:
    record, _ = audits.rich_gate()
    terminal.show_audit(record, console)
    lines = shown(console).splitlines()
    assert lines[0] == "PROMOTE  v8 becomes champion of digits in place of v7."
    assert "tied in validation_accuracy: v8, v10" in shown(console)
    assert "cannot tell whether v12" in shown(console)
    table = [line.split()[:2] for line in lines if (line.startswith("v") and " [0." in line) or " failed " in line]
    assert [row[0] for row in table] == ["v8", "v7", "v10", "v9", "v12", "v13", "v11", "v14"]
    for label in ("v9", "v10", "v11", "v12", "v13", "v14"):
        assert sum(line.startswith(f"{label}  ") for line in lines) == 2, f"{label}: a row and a reason"


@pytest.mark.parametrize("name", list(audits.everything()))
def test_no_name_reaches_the_terminal_unescaped(name: str, console: Console) -> None:
    record, _ = audits.everything()[name]
    terminal.show_audit(record, console)
    for evidence in record.evidences:
        terminal.show_measurements(evidence, console)
    text = shown(console)
    assert "\x1b" not in text and "\u202e" not in text and "\u200b" not in text
    assert "[red]not red[/red]" in text or "v14" not in text, "markup of a name is shown, not obeyed"


def test_a_dry_run_and_a_missing_receipt_say_so(console: Console) -> None:
    terminal.show_audit(audits.rich_gate(dry_run=True, receipt=None)[0], console)
    assert "would become champion" in shown(console)
    assert "nothing was promoted" in shown(console)


def test_measurements_show_bounds_errors_and_reasons(console: Console) -> None:
    terminal.show_measurements(audits.evidence(9), console)
    terminal.show_measurements(audits.evidence(13), console)
    text = shown(console)
    assert "≥ 37" in text and "(error unknown)" in text and "exact" in text and "0.9662  [0.9578, 0.9746]" in text
    assert "over budget" in text and "raise budget.passes" in text


def test_candidates_stand_side_by_side_and_other_protocols_are_named(console: Console) -> None:
    other = audits.evidence(9).model_copy(update={"protocol": audits.protocol(seed=1)})
    terminal.show_comparison([("a:v8", audits.evidence(8)), ("b:v9", other)], console)
    text = shown(console)
    assert "b:v9 does not compare with a:v8: seed: 1 / 0" in text
    row = next(line for line in text.splitlines() if line.startswith("validation_accuracy"))
    assert row.split() == ["validation_accuracy", "0.9738", "0.9662"]


def test_comparing_nothing_says_so(console: Console) -> None:
    terminal.show_comparison([], console)
    assert "nothing to compare" in shown(console)


def test_listing_and_checks(console: Console) -> None:
    rows = [
        {"group": "probes", "name": "accuracy", "about": "Share correct.", "metrics": ["validation_accuracy"]},
        {"group": "backends", "name": "broken", "error": "expected torch, got \x1b[31mnothing; install it"},
    ]
    terminal.show_listing(rows, console)
    checks = [Check(name="registry", ok=True, found="MLflow"), Check(name="net", ok=False, found="none", remedy="wait")]
    terminal.show_checks(checks, console)
    text = shown(console)
    assert "validation_accuracy" in text and r"\x1b[31mnothing" in text
    assert "works" in text and "fails" in text and "wait" in text


def test_progress_without_a_terminal_is_a_line_a_step(console: Console) -> None:
    with terminal.progress_reporter(console) as progress:
        for share in (0.0, 0.1, 0.2):
            progress("v8\x1b[1A", "accuracy", share)
        progress("v8\x1b[1A", "spectrum", 0.5)
    assert shown(console).splitlines() == [r"v8\x1b[1A: accuracy (0%)", r"v8\x1b[1A: spectrum (50%)"]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_bears_many_threads(is_terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=is_terminal)
    with terminal.progress_reporter(console) as progress:
        workers = [
            threading.Thread(target=lambda k=k: [progress(f"v{k}", f"step {j}", j / 20) for j in range(20)])
            for k in range(8)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    told = out.getvalue()
    assert all(f"v{k}" in told for k in range(8))
    if not is_terminal:
        assert len(told.splitlines()) == 160


def test_the_terminal_needs_no_heavy_library() -> None:
    heavy = "numpy jinja2 markupsafe yaml torch scipy pandas".split()
    code = f"import sys, flataudit.terminal; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"

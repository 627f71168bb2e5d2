"""What the documents say is what the program has: links, commands, keys, metrics and parameters."""

import re
import shlex
from pathlib import Path
from typing import Any, cast

import pytest
from typer.main import get_command

from flataudit import plugins
from flataudit.cli import app
from flataudit.config import AuditConfig, parse_config
from flataudit.contracts import Probe
from flataudit.decision import Decision
from flataudit.policy import Criterion, Policy

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("pipelines/*.md"), *ROOT.glob("plugins/*/*.md")]
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def anchors(document: Path) -> set[str]:
    """Names of the headings, as GitHub makes them."""
    found = HEADING.findall(document.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (document.parent / path).resolve() if path else document
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def commands(document: str) -> list[str]:
    """Lines of code blocks that call flataudit, without their comments."""
    blocks = re.findall(r"^```(?:bash|sh)?\n(.*?)^```", text(document), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line.partition("#")[0].strip() for line in lines if line.startswith("flataudit ")]


@pytest.mark.parametrize("line", commands("README.md"))
def test_the_command_line_accepts_what_the_readme_types(line: str) -> None:
    _, name, *rest = shlex.split(line)
    get_command(app).commands[name].make_context(name, rest)  # type: ignore[attr-defined]


def test_the_readme_types_the_main_commands() -> None:
    typed = {line.split()[1] for line in commands("README.md")}
    assert {"init", "gate", "score", "audit", "report", "doctor"} <= typed


def test_the_policy_file_of_the_document_is_one() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", text("docs/policy.md"), re.MULTILINE | re.DOTALL)
    config = parse_config(block)
    assert config.challengers.newest == 5 and set(config.data.shifted) == {"autumn"}


@pytest.mark.parametrize("model", [AuditConfig, Policy, Criterion], ids=lambda model: model.__name__)
def test_every_key_of_the_policy_file_is_explained(model: type[AuditConfig | Policy | Criterion]) -> None:
    absent = [name for name in model.model_fields if not re.search(rf"\b{name}\b", text("docs/policy.md"))]
    assert not absent


def test_the_documented_defaults_are_the_defaults() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| ([^|]+) \|", text("docs/policy.md"), re.MULTILINE)
    policy, documented = Policy(), {name: value.strip(" `") for name, value in rows}
    rule = policy.non_inferiority
    found = {f"non_inferiority.{name}": getattr(rule, name) for name in ("metric", "margin", "confidence")}
    found |= {name: getattr(policy, name) for name in ("band_width", "tie_break", "score_lead", "missing")}
    found |= {"first_promotion": policy.first_promotion}
    assert {name: documented[name] for name in found} == {name: str(value) for name, value in found.items()}


def test_every_exit_code_of_a_decision_is_explained() -> None:
    for word in Decision.model_fields["decision"].annotation.__args__:  # type: ignore[union-attr]
        assert f"| `{word}` |" in text("docs/decisions.md")


@pytest.mark.parametrize("name", plugins.names("probes"))
def test_every_probe_is_explained_with_its_metrics_and_parameters(name: str) -> None:
    document, probe = text("docs/probes.md"), cast("Probe", plugins.make("probes", name))
    assert f"`{name}`" in document
    for metric in probe.metrics:
        assert re.search(rf"^\| `{metric.name}(/<set>)?` \| .*\| {metric.better} \|", document, re.MULTILINE)
    fields: dict[str, Any] = getattr(type(probe), "model_fields", {})
    for parameter, field in fields.items():
        assert f"`{parameter}`" in document
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert re.search(rf"`{parameter}` \({re.escape(f'{field.default:g}')}\b", document), parameter

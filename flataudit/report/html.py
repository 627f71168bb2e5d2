"""The audit as one page that needs nothing else: no script, no network, no file beside it.

The content security policy allows the page's own style sheet, by its hash, and nothing more, so that even a name
that slipped through escaping could not run or load anything.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from flataudit.audit import AuditRecord
from flataudit.evidence import Array, AuditProtocol
from flataudit.report import curvature, inventory, panels, reliability, summary, tables
from flataudit.report.escaping import visible
from flataudit.report.panels import Panel

__all__ = ["HtmlReport"]


class HtmlReport:
    """The whole report: verdict, candidates, criteria, comparisons, every number, figures, costs, provenance."""

    suffix: ClassVar[str] = "html"

    def render(self, audit: AuditRecord, arrays: Mapping[str, Mapping[str, Array]]) -> str:
        """The page."""
        style = _style()
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        return (
            _environment()
            .get_template("report.html.jinja")
            .render(
                audit=audit,
                summary=summary,
                tables=tables,
                inventory=inventory,
                differences=panels.differences(audit) if audit.kind == "gate" else None,
                panels=_panels(audit, arrays),
                protocols=_protocols(audit),
                policy=yaml.safe_dump(
                    audit.plan.policy.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True
                ),
                style=Markup(style),  # noqa: S704  # the package's own file
                style_digest=digest,
                svg=Markup,
            )
        )


@dataclass(frozen=True)
class _Protocol:
    """How some of the candidates were measured."""

    protocol: AuditProtocol
    labels: tuple[str, ...]


def _protocols(audit: AuditRecord) -> tuple[_Protocol, ...]:
    """The different protocols; candidates of different ones compare by their answers at most."""
    found: dict[str, tuple[AuditProtocol, list[str]]] = {}
    for evidence in audit.evidences:
        found.setdefault(evidence.protocol.digest, (evidence.protocol, []))[1].append(evidence.candidate.label)
    return tuple(_Protocol(protocol, tuple(labels)) for protocol, labels in found.values())


def _panels(audit: AuditRecord, arrays: Mapping[str, Mapping[str, Array]]) -> tuple[Panel, ...]:
    drawn = (reliability.calibration, panels.corruption, panels.landscape, curvature.layers, curvature.invariance)
    return tuple(draw(audit, arrays) for draw in drawn)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("flataudit", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )


def _shown(value: object) -> object:
    """Text from records with everything invisible shown; markup that this package made as it is."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _style() -> str:
    loader = PackageLoader("flataudit", "report/templates")
    return loader.get_source(_environment(), "report.css")[0]

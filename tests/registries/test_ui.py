"""What a person sees of an audit in MLflow's own pages, in a real browser."""

import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

from flataudit.evidence import Metric
from flataudit.registries.mlflow import MlflowRegistry

pytestmark = [
    pytest.mark.browser,
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore"),  # MLflow's own code warns, of SQLAlchemy and of type hints
]

METRIC, BETTER = "flataudit/validation_accuracy", "0.951"


@pytest.fixture
def page():
    """A page of headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            yield browser.new_page(viewport={"width": 1500, "height": 1300})
        finally:
            browser.close()


class Recorded(NamedTuple):
    model: str
    audit_runs: tuple[str, ...]


@pytest.fixture
def recorded(server, audit, files, tmp_path, request) -> Recorded:
    """Two versions that were audited and recorded; the second one was promoted."""
    model = request.node.name
    for number in (1, 2):
        server.version(tmp_path / f"m{number}", model, title=f"recipe {number}")
    server.client.set_registered_model_alias(model, "champion", "1")
    registry = MlflowRegistry(model=model, tracking_uri=server.uri, challengers={"newest": 2})
    found = []
    for candidate in (registry.champion(), *registry.challengers()):
        (tmp_path / candidate.label).mkdir()
        found.append(registry.fetch(candidate, tmp_path / candidate.label))
    better = {"v2": [Metric(name="validation_accuracy", better="higher").measured(float(BETTER))]}
    made = audit(found, champion=found[0], promoted=found[1], extra=better)
    written = registry.record(made, files, promote=True)
    return Recorded(model, tuple(written.audit_runs.values()))


def keep(page, name: str, tmp_path: Path) -> None:
    folder = Path(os.environ.get("FLATAUDIT_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(folder / f"{name}.png"))


def test_metrics_stand_in_the_pages_that_compare(server, recorded, page, tmp_path):
    runs = list(recorded.audit_runs)
    experiment = server.client.get_run(runs[0]).info.experiment_id
    found = server.client.search_model_versions(f"name='{recorded.model}'")
    versions = {str(version.version): version.run_id for version in found}
    places = {
        "compare-runs": ("compare-runs", {"runs": runs, "experiments": [experiment]}),
        "compare-versions": ("compare-model-versions", {"name": recorded.model, "runs": versions}),
    }
    for name, (place, asked) in places.items():
        query = "&".join(f"{key}={quote(json.dumps(value))}" for key, value in asked.items())
        page.goto(f"{server.uri}/#/{place}?{query}")
        try:
            for text in (METRIC, BETTER):
                page.locator(f"text={text} >> visible=true").first.wait_for(timeout=30_000)
        finally:
            keep(page, name, tmp_path)


def test_a_version_shows_its_decision(server, recorded, page, tmp_path):
    page.goto(f"{server.uri}/#/models/{recorded.model}/versions/2")
    try:
        page.get_by_text("flataudit.decision").first.wait_for(timeout=30_000)
    finally:
        keep(page, "version", tmp_path)
    assert page.get_by_text("promote", exact=True).count() >= 1

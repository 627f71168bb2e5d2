"""What a person sees of an audit in MLflow's own pages, in a real browser."""

import json
import os
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest

from flataudit.registries.mlflow import MlflowRegistry

pytestmark = [
    pytest.mark.browser,
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore"),  # MLflow's own code warns, of SQLAlchemy and of type hints
]

MODEL = "shown-in-the-browser"
METRIC = "flataudit/validation_accuracy"


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


@pytest.fixture
def receipt(server, audit, files, tmp_path):
    """Audit run of each of two versions that were audited and recorded."""
    for number in (1, 2):
        server.version(tmp_path / f"m{number}", MODEL, title=f"recipe {number}")
    server.client.set_registered_model_alias(MODEL, "champion", "1")
    registry = MlflowRegistry(model=MODEL, tracking_uri=server.uri, challengers={"newest": 2})
    found = []
    for candidate in (registry.champion(), *registry.challengers()):
        (tmp_path / candidate.label).mkdir()
        found.append(registry.fetch(candidate, tmp_path / candidate.label))
    return registry.record(audit(found, champion=found[0], promoted=found[1]), files, promote=True)


def keep(page, name: str, tmp_path: Path) -> None:
    folder = Path(os.environ.get("FLATAUDIT_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(folder / f"{name}.png"))


def test_metrics_stand_in_the_pages_that_compare(server, receipt, page, tmp_path):
    runs = list(receipt.audit_runs.values())
    experiment = server.client.get_run(runs[0]).info.experiment_id
    versions = {
        version.run_id: str(version.version) for version in server.client.search_model_versions(f"name='{MODEL}'")
    }
    places = {
        "compare-runs": ("compare-runs", {"runs": runs, "experiments": [experiment]}),
        "compare-versions": ("compare-model-versions", {"name": MODEL, "runs": versions}),
    }
    for name, (place, asked) in places.items():
        query = "&".join(f"{key}={quote(json.dumps(value))}" for key, value in asked.items())
        page.goto(f"{server.uri}/#/{place}?{query}")
        try:
            page.get_by_text(METRIC, exact=True).first.wait_for(timeout=30_000)
        finally:
            keep(page, name, tmp_path)


def test_a_version_shows_its_decision(server, receipt, page, tmp_path):
    page.goto(f"{server.uri}/#/models/{MODEL}/versions/2")
    try:
        page.get_by_text("flataudit.decision").first.wait_for(timeout=30_000)
    finally:
        keep(page, "version", tmp_path)
    assert page.get_by_text("promote", exact=True).count() >= 1

"""Debian's chromium, driven by playwright over the DevTools protocol; axe-core as npm has it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.queue_servers import needed

AXE = Path(__file__).resolve().parents[1] / "browser" / "node_modules" / "axe-core" / "axe.min.js"
#: Chromium refuses its sandbox to root; what it shows here is ours.
OPTIONS = ["--no-sandbox", "--disable-dev-shm-usage"]


@contextmanager
def chromium() -> Iterator[Browser]:
    program = needed("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        try:
            yield browser
        finally:
            browser.close()


def barriers(page: Page) -> list[str]:
    """What axe-core finds: rules broken, each with where."""
    if not AXE.exists():
        missing = f"{AXE} is missing: tests/install-system-packages installs it"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    page.evaluate(AXE.read_text())
    found: list[dict[str, Any]] = page.evaluate("axe.run(document).then((result) => result.violations)")
    return [f"{rule['id']}: {node['html'][:200]} {node['failureSummary']}" for rule in found for node in rule["nodes"]]

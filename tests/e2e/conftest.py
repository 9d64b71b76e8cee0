"""One `gristmill up` for all slow tests that share it, and a page of a real browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.e2e.browser import PATIENCE, QUIET, PrefectPage
from tests.flows.conftest import clean_environment, small_crawl
from tests.flows.stacks import Stack, running_stack

__all__ = ["clean_environment", "small_crawl"]  # fixtures


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, clean_environment: dict[str, str]) -> Iterator[Stack]:
    """Servers for the whole session; a test that stops or breaks them starts its own (`running_stack`)."""
    with running_stack(tmp_path_factory.mktemp("stack"), clean_environment) as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window; tests that need it are skipped where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser, stack: Stack, tmp_path: Path) -> Iterator[PrefectPage]:
    """Prefect's pages on `stack`; nothing may be asked of any other machine."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    opened = PrefectPage(context.new_page(), stack.prefect, tmp_path)
    yield opened
    context.close()
    assert not opened.elsewhere, "the UI must work without the internet"

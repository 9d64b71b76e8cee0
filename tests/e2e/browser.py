"""Prefect's pages as a person uses them: fields are found by their words, states and links are read off the page."""

import json
import re
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
]
_ENDED = re.compile("Completed|NothingNew|Nothing New|Failed|Crashed|Cancelled")
PATIENCE = 120_000.0
"""Milliseconds that a page may take on a busy machine."""


class PrefectPage:
    """One tab of a browser on Prefect's pages."""

    def __init__(self, page: Page, address: str, folder: Path) -> None:
        """`address` is Prefect's; screenshots go to `folder`."""
        self.page, self._address, self._folder = page, address, folder
        self.elsewhere: list[str] = []
        """Addresses of other machines that a page asked for."""
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: self._notice(request.url))

    def _notice(self, url: str) -> None:
        if not re.match(r"(https?|wss?)://127\.0\.0\.1[:/]|data:|blob:|about:", url):
            self.elsewhere.append(url)

    def open_deployment(self, deployment: str, tab: str = "") -> None:
        """The page of FLOW/NAME."""
        with urllib.request.urlopen(f"{self._address}/api/deployments/name/{deployment}") as answer:
            found = json.load(answer)
        self.page.goto(f"{self._address}/deployments/deployment/{found['id']}{f'?tab={tab}' if tab else ''}")

    def open_form(self, deployment: str) -> None:
        """The form of FLOW/NAME, by way of the deployment's page."""
        self.open_deployment(deployment)
        self.page.get_by_role("button", name="Run", exact=True).click()
        self.page.get_by_text("Custom run").click()
        expect(self.page.locator(".schema-form-property").first).to_be_visible()

    def field(self, path: str) -> Locator:
        """A field by the words over it and over its sections: "corpus / Source / Base URL"."""
        found: Locator = self.page.locator("body")
        for words in path.split(" / "):
            label = f"normalize-space()={_quoted(words)} or normalize-space()={_quoted(f'{words} (Optional)')}"
            header = "./div[contains(@class,'p-label__header')]//span[contains(@class,'schema-form-property__label')]"
            found = found.locator(f"xpath=.//div[contains(@class,'schema-form-property ') and {header}[{label}]]").or_(
                found.locator(f"xpath=.//div[@class='p-label schema-form-property' and {header}[{label}]]")
            )
        return found

    def choose(self, path: str, alternative: str) -> None:
        """Press one of the buttons under a field's words, such as Own values, Number or Unset."""
        group = "xpath=./div[contains(@class,'p-label__body')]/div[contains(@class,'p-button-group')]//button"
        self.field(path).locator(group).get_by_text(alternative, exact=True).click()

    def fill(self, values: Mapping[str, str]) -> None:
        """Type texts into fields, by path."""
        for path, text in values.items():
            self.field(path).locator("textarea, input").first.fill(text)

    def pick(self, path: str, option: str) -> None:
        """Pick from a drop-down list."""
        self.field(path).locator("button.p-select-button__control").press("ArrowDown")
        self.page.locator(".p-select-option").get_by_text(option, exact=True).click()

    def add_schedule(self, deployment: str, cron: str, section: str, fill: Callable[[], None]) -> None:
        """Start FLOW/NAME by itself, with another value of one of its sections, which is filled in by a function."""
        self.open_deployment(deployment)
        self.page.get_by_role("button", name="Schedule", exact=True).click()
        window = self.page.locator(".p-modal__card")
        window.get_by_text("Cron", exact=True).click()
        window.locator("input[placeholder='* * * * *'], input").nth(2).fill(cron)
        window.locator("button.p-select-button__control").last.press("ArrowDown")
        self.page.locator(".p-select-option").get_by_text(section, exact=True).click()
        window.get_by_text("Parameter Overrides").click()  # which closes the list
        expect(window.locator(".schema-form-property").first).to_be_visible()
        fill()
        self.screenshot("schedule")
        window.get_by_role("button", name="Save", exact=True).click()
        expect(window).to_have_count(0)

    def switch_off_schedules(self, deployment: str) -> None:
        """Switch off all schedules that FLOW/NAME has."""
        self.open_deployment(deployment)
        switches = self.page.get_by_role("switch")
        expect(switches.first).to_be_visible()
        for switch in switches.all():
            if switch.get_attribute("aria-checked") == "true":
                switch.click()
        expect(self.page.locator("[role=switch][aria-checked=true]")).to_have_count(0)

    def press_submit(self) -> None:
        """Ask for the run, which may be refused."""
        self.page.get_by_role("button", name="Submit", exact=True).click()

    def submit(self) -> str:
        """Start the run, and go to its page; returns its id."""
        name = self.page.get_by_role("textbox").first.input_value()  # drawn by chance
        self.press_submit()
        self.page.get_by_role("link", name=name).first.click()
        self.page.wait_for_url(re.compile(r"/flow-run/"))
        return re.split("[/?]", self.page.url.partition("/flow-run/")[2])[0]

    def open_run(self, flow_run: str, tab: str = "") -> None:
        """The page of a flow run, and a tab of it."""
        self.page.goto(f"{self._address}/runs/flow-run/{flow_run}")
        if tab:
            self.page.get_by_role("listitem").get_by_text(tab, exact=True).click()

    def expect_state(self, state: str, seconds: float = 600) -> None:
        """Wait until the page of a flow run shows that it has ended, in this state."""
        badge = self.page.locator(".state-badge").first
        expect(badge).to_have_text(_ENDED, timeout=seconds * 1000)
        expect(badge).to_have_text(state)

    def screenshot(self, name: str) -> Path:
        """What can be seen now."""
        path = self._folder / f"{name}.png"
        self.page.screenshot(path=path)
        return path


def _quoted(text: str) -> str:
    return f'"{text}"' if "'" in text else f"'{text}'"

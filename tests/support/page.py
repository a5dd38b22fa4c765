"""The service's page in a browser tab, for tests."""

from pathlib import Path
from typing import Any

import pytest

from tests.support import browser
from tests.support.serving import Running, wait_for


class Tab(browser.Tab):
    """A tab with the service's page."""

    def open(self, service: Running) -> Any:
        """Open the page and wait until it shows part of the collection."""
        self.page.goto(f"{service.url}/")
        self.page.locator(".card").first.wait_for()
        return self.page

    def bodies(self, path: str) -> list[dict[str, Any]]:
        """Return the bodies that were sent to a path."""
        return [request.post_data_json for request in self.asked if request.url.endswith(path)]

    def hosts(self) -> set[str]:
        return {request.url.split("/")[2] for request in self.asked if request.url.startswith("http")}


def until(page: Any, expression: str) -> None:
    """Wait for an expression to be true; the page's security policy forbids `wait_for_function`."""
    wait_for(lambda: page.evaluate(expression), 120)


def searched(page: Any) -> None:
    """Wait for the results of a search."""
    page.locator("#results[aria-busy=false]").wait_for()
    page.get_by_text("The nearest").wait_for()


SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
WIDTHS = (1280, 390)
LOOKS = [(width, scheme) for scheme in ("light", "dark") for width in WIDTHS]


def look(browser: Any, width: int, scheme: str) -> Tab:
    """Return a tab of a width, light or dark, that asks for reduced motion; below 500 pixels it is a phone."""
    phone = width < 500
    size = {"width": width, "height": 900}
    return Tab(browser, viewport=size, color_scheme=scheme, reduced_motion="reduce", is_mobile=phone, has_touch=phone)


def check_access(page: Any, name: str, whole: bool = True) -> None:
    """Check that axe-core finds nothing serious and that nothing is cut at the side; take a screenshot.

    Args:
        name: name of the screenshot in `SCREENSHOTS`.
        whole: take the whole page, not only the part in view.
    """
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page.evaluate("scrollTo(0, 0)")
    in_view = "[...document.images].filter((each) => each.getBoundingClientRect().top < innerHeight)"
    until(page, f"{in_view}.every((each) => each.complete)")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=whole)
    found = axe.Axe().run(page).response["violations"]
    serious = [
        (each["id"], each["impact"], [node["html"][:160] for node in each["nodes"]])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == [], name
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name

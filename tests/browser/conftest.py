"""A real browser (Debian's chromium, driven by Playwright) over the session's service with its demo checkpoint."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Error, Page, Response, async_playwright, expect

from tests.client import pair
from tests.service_process import ServiceProcess

DESKTOP = {"width": 1280, "height": 900}
PATIENCE_MS = 60_000  # a busy machine renders slowly
PHONE = {"width": 390, "height": 844}
SECOND = "style_000000500"  # a further checkpoint, beside the demo's own pair
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")

expect.set_options(timeout=PATIENCE_MS)


@dataclass
class Visit:
    """A page in a browser, and all that it loaded, said and got wrong."""

    page: Page
    url: str
    also: str = ""  # another address that videos may come from
    responses: list[Response] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def loaded(self, answer: Response) -> None:
        """Note what was loaded."""
        self.responses.append(answer)

    def failed(self, error: Error) -> None:
        """Note what a script did not catch."""
        self.wrong.append(str(error))

    def said(self, message: ConsoleMessage) -> None:
        """Note what the content security policy has stopped."""
        if "Security Policy" in message.text:
            self.wrong.append(message.text)

    def elsewhere(self) -> list[str]:
        """Return the addresses it loaded that are not the service's own."""
        own = (urlsplit(self.url).netloc, urlsplit(self.also).netloc, "")
        return [answer.url for answer in self.responses if urlsplit(answer.url).netloc not in own]

    async def loaded_bytes(self) -> int:
        """Return the bytes of all bodies so far."""
        return sum([len(await answer.body()) for answer in self.responses])

    async def go(self, place: str = "") -> None:
        """Open a place of the page, such as `#/gallery`."""
        await self.page.goto(f"{self.url}/{place}")


Visits = Callable[..., Awaitable[Visit]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium without a window."""
    found = next((path for name in _CHROMIUM if (path := shutil.which(name))), None)
    assert found, "tests/browser needs chromium: apt-get install chromium"
    async with async_playwright() as playwright:
        # As root, which CI is, chromium has no sandbox.
        browser = await playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visits(browser: Browser) -> AsyncIterator[Visits]:
    """Open an address in a window of that size; whatever goes wrong on the page fails the test at its end."""
    opened: list[Visit] = []

    async def visit(url: str, size: dict[str, int] = DESKTOP, also: str = "", **options: object) -> Visit:
        context = await browser.new_context(viewport=size, **options)  # type: ignore[arg-type]
        visit = Visit(await context.new_page(), url, also)
        opened.append(visit)
        visit.page.set_default_timeout(PATIENCE_MS)
        visit.page.on("response", visit.loaded)
        visit.page.on("pageerror", visit.failed)
        visit.page.on("console", visit.said)
        return visit

    yield visit
    for one in opened:
        await one.page.context.close()
        assert one.wrong == []
        assert one.elsewhere() == []


@pytest.fixture(scope="session")
def two_checkpoints(service: ServiceProcess) -> ServiceProcess:
    """Return the service, with a second checkpoint beside the demo's pair."""
    root = service.directory / "loras"
    for lora, copy in zip(pair(), pair(SECOND), strict=True):
        shutil.copy(root / lora["path"], root / copy["path"])
    return service


@pytest_asyncio.fixture(loop_scope="session")
async def visit(visits: Visits, two_checkpoints: ServiceProcess) -> Visit:
    """Return the page of the service, on a desktop."""
    return await visits(two_checkpoints.url)

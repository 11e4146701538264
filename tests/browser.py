"""Pages in a headless Chromium that has no network; tests that use it are skipped where there is none."""

import re
import shutil

import pytest

REASON = "needs playwright and chromium"


@pytest.fixture(scope="module")
def chromium():
    """Of a module, not of the session: while it runs, no test can have an event loop of its own."""
    api = pytest.importorskip("playwright.sync_api", reason=REASON)
    path = shutil.which("chromium")
    if path is None:
        pytest.skip(REASON)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visits:
    """Opens pages, and keeps what they should not have done.

    Attributes:
        complaints: Requests for anything but the page itself, errors of scripts, errors on the console.
    """

    def __init__(self, context):
        self.context = context
        self.complaints = []

    def __call__(self, path):
        return self.open(path.as_uri(), re.escape(path.as_uri()))

    def open(self, address, own):
        """Open a page; what it may ask for are addresses that `own`, a regular expression, matches."""
        page = self.context.new_page()
        page.on("request", lambda request: self._note_request(request, own))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("console", self._note_message)
        page.on("dialog", self._note_dialog)
        page.goto(address)
        return page

    def _note_request(self, request, own):
        if not re.fullmatch(own, request.url):
            self.complaints.append(f"request: {request.url}")

    def _note_message(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _note_dialog(self, dialog):
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@pytest.fixture
def visit(chromium):
    """Open a file and return the page, in which nothing may have gone wrong by the end of the test."""
    context = chromium.new_context(offline=True, viewport={"width": 1200, "height": 900})
    visits = Visits(context)
    yield visits
    context.close()
    assert visits.complaints == []

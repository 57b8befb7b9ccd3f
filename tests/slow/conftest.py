"""The browser of the slow checks."""

import shutil

import pytest

QUIET = ("no-first-run", "disable-background-networking", "disable-component-update", "disable-sync", "disable-gpu")


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright  # not installed for the other slow checks

    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.fail("needs Chromium: install the system's package (chromium)")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", *(f"--{name}" for name in QUIET)]
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()

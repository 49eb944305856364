"""Writes screenshots of the demo page (light, dark, phone) into docs/figures.

    python scripts/screenshot_page.py MODEL_DIR

It needs `pip install playwright` and a Chromium on the PATH.
"""

import argparse
import shutil
import threading
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from gportuguese.generation import Writer
from gportuguese.serve import Engine, Limits, describe, make_server

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
SHOTS = (
    ("light", {"width": 1280, "height": 1120}, "light", "pt-BR"),
    ("dark", {"width": 1280, "height": 1120}, "dark", "en-US"),
    ("phone", {"width": 390, "height": 844}, "light", "pt-BR"),
)


def main() -> None:
    """Writes serve-light.png, serve-dark.png (with colours) and serve-phone.png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of a model, such as train-.../model")
    parser.add_argument("--port", type=int, default=8071)
    args = parser.parse_args()
    folder = Path(args.model).resolve()
    writer = Writer.load(folder, "cpu")
    server = make_server(Engine(writer, Limits()), describe(folder, writer))
    server.config.port = args.port
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            for name, viewport, scheme, locale in SHOTS:
                page = browser.new_page(
                    viewport=viewport, color_scheme=scheme, locale=locale, device_scale_factor=1.5
                )
                page.goto(f"http://127.0.0.1:{args.port}/")
                page.locator("#seed").evaluate("(field) => { field.value = 7; }")
                page.locator("#examples button").nth(2).click()
                page.locator("#stop").wait_for(state="hidden", timeout=60_000)
                if name == "dark":
                    page.locator("#colours").click()
                page.mouse.move(5, 5)
                page.evaluate("scrollTo(0, 0)")
                page.wait_for_timeout(500)
                page.screenshot(path=FIGURES / f"serve-{name}.png", full_page=name == "phone")
                print(FIGURES / f"serve-{name}.png")
            browser.close()
    finally:
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main()

"""The page in a real Chromium: typing, streaming, stopping, bars, languages, failures."""

import re
import shutil
import signal

import pytest

from gportuguese.generate import Sampling
from tests.live_server import serving, serving_process, slow_down

sync_api = pytest.importorskip("playwright.sync_api", reason="the page tests need playwright")
expect = sync_api.expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url(writer):
    with serving(writer) as url:
        yield url


@pytest.fixture
def open_page(browser):
    """Opens the page; at the end, nothing unexpected may be in its console."""
    contexts, complaints = [], []

    def open_page(url, locale="pt-BR", **options):
        contexts.append(browser.new_context(locale=locale, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text))
        page.goto(url)
        return page

    open_page.complaints = complaints
    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def set_slider(page, name, value):
    page.locator(f"#{name}").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }",
        str(value),
    )


def test_typing_continuing_bars_and_undo(open_page, url, writer):
    page = open_page(url)
    text, bars = page.locator("#text"), page.locator("#bars button")
    text.fill("The history of the city")
    expect(page.locator("#meter")).to_have_text(
        f"{len(writer.prompt_ids('The history of the city'))} de 256 tokens"
    )
    expect(bars).to_have_count(10)
    set_slider(page, "temperature", 0)
    set_slider(page, "repetition_penalty", 1)
    set_slider(page, "max_tokens", 20)
    text.press("Control+Enter")
    expect(page.locator("#status")).to_have_text(re.compile(r"Pronto: 20 tokens em"))
    written = writer.write("The history of the city", Sampling(max_new_tokens=20, top_k=1))
    expect(text).to_have_value("The history of the city" + written)
    expect(page.locator("#mirror mark")).to_have_text(written)
    expect(page.locator("#spoken")).to_have_text(written)

    following = writer.write(
        "The history of the city" + written, Sampling(max_new_tokens=1, top_k=1)
    )
    expect(page.locator("#meter")).to_have_text(re.compile("^2[0-9] de"))
    expect(bars.first).to_have_text(re.compile("^" + re.escape(following.replace(" ", "·"))))
    bars.first.click()
    expect(text).to_have_value("The history of the city" + written + following)
    for _ in range(2):
        page.get_by_role("button", name="Desfazer").click()
    expect(text).to_have_value("The history of the city")


def test_examples_write_and_stop_stops(open_page, url, monkeypatch):
    slow_down(monkeypatch)
    page = open_page(url)
    set_slider(page, "max_tokens", 200)
    page.get_by_role("button", name="Em um achado chocante").click()
    stop = page.get_by_role("button", name="Parar")
    expect(page.locator("#mirror mark")).not_to_be_empty()
    expect(page.locator("#text")).not_to_be_editable()
    stop.click()
    expect(page.locator("#status")).to_have_text(re.compile("Parado depois de"))
    value = page.locator("#text").input_value()
    assert value.startswith("Em um achado chocante, o cientista descobriu um")
    page.wait_for_timeout(300)
    assert page.locator("#text").input_value() == value
    expect(page.locator("#text")).to_be_editable()


def test_what_looks_like_html_stays_text(open_page, url):
    page = open_page(url)
    hostile = "<img src=x onerror=alert(1)><script>document.title='x'</script>"
    page.locator("#text").fill(hostile)
    set_slider(page, "max_tokens", 5)
    page.locator("#write").click()
    expect(page.locator("#status")).to_have_text(re.compile("Pronto|terminado"))
    assert page.locator("#mirror").inner_text().startswith(hostile)
    assert page.locator("#mirror img, #mirror script, #spoken img").count() == 0
    page.evaluate("""() => {
        const script = document.createElement('script');
        script.textContent = "document.title = 'x'";
        document.body.append(script);
    }""")
    assert page.title() == "gpt-pt"
    assert "Content Security Policy" in open_page.complaints.pop()


def test_language_theme_and_labels(open_page, url):
    page = open_page(url, locale="en-GB", color_scheme="dark", reduced_motion="reduce")
    expect(page.get_by_role("heading", level=1)).to_have_text("Begin a text. The model goes on.")
    page.get_by_role("button", name="Português").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Comece um texto. O modelo continua.")
    assert page.locator("html").get_attribute("lang") == "pt"
    expect(page.get_by_label("Temperatura", exact=True)).to_have_value("0.8")
    expect(page.get_by_label("Comece um texto. O modelo continua.")).to_be_editable()

    def background():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    dark = background()
    page.get_by_role("button", name="Claro ou escuro").click()
    assert background() != dark
    unnamed = page.locator("button, input, textarea").evaluate_all(
        "all => all.filter(e => !(e.ariaLabel || e.textContent.trim() || e.labels?.length)).length"
    )
    assert unnamed == 0


def test_a_phone_needs_no_sideways_scrolling(open_page, url):
    page = open_page(url, viewport={"width": 360, "height": 740})
    page.locator("#text").fill("a" * 120)
    expect(page.locator("#bars button")).to_have_count(10)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_copy(open_page, url):
    page = open_page(url, permissions=["clipboard-read", "clipboard-write"])
    page.locator("#text").fill("olá, mundo")
    page.get_by_role("button", name="Copiar").click()
    expect(page.locator("#status")).to_have_text("Texto copiado.")
    assert page.evaluate("navigator.clipboard.readText()") == "olá, mundo"


def test_too_long_a_text_is_told(open_page, url):
    page = open_page(url)
    page.locator("#text").fill("palavra " * 300)
    expect(page.get_by_role("alert")).to_have_text(re.compile("já ocupa os 256 tokens"))
    assert "400" in open_page.complaints.pop()  # the browser's own line on the answer


def test_a_full_server_is_told(open_page, url):
    page = open_page(url)
    expect(page.locator("#bars button")).to_have_count(10)
    page.route(
        "**/v1/completions",
        lambda route: route.fulfill(status=429, headers={"Retry-After": "7"}, json={"error": {}}),
    )
    page.locator("#write").click()
    expect(page.get_by_role("alert")).to_have_text("O servidor está ocupado. Tente de novo em 7 s.")
    assert "429" in open_page.complaints.pop()
    expect(page.locator("#write")).to_be_visible()


@pytest.mark.slow  # a process of its own, that can be killed
def test_a_server_that_dies_is_told(open_page):
    with serving_process() as (process, url):
        page = open_page(url)
        set_slider(page, "max_tokens", 200)
        page.locator("#text").fill("A")
        page.locator("#write").click()
        expect(page.locator("#mirror mark")).to_have_text(re.compile(".{20}"))
        process.send_signal(signal.SIGSTOP)
        process.kill()
        process.wait()
        expect(page.get_by_role("alert")).to_have_text(re.compile("caiu no meio do texto"))
        page.locator("#write").click()
        expect(page.get_by_role("alert")).to_have_text(re.compile("O servidor não responde"))
    assert all("ERR_" in line for line in open_page.complaints)
    open_page.complaints.clear()


def test_a_token_is_asked_for(open_page, writer):
    with serving(writer, token="segredo") as url:
        page = open_page(url)
        field = page.get_by_label("Este servidor pede uma senha")
        field.fill("errada")
        field.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("O servidor não aceitou esta senha.")
        field.fill("segredo")
        field.press("Enter")
        expect(field).to_be_hidden()
        expect(page.locator("#bars button")).to_have_count(10)
        assert page.evaluate("localStorage.length + sessionStorage.length") == 0
        assert page.context.cookies() == []
        assert all("401" in line for line in open_page.complaints)
        open_page.complaints.clear()

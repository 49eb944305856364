"""Tests the page in a real Chromium: typing, streaming, stopping, bars, languages, failures."""

import re
import shutil
import signal
import subprocess
import sys

import httpx
import pytest
import torch

from gportuguese.generation import Sampling
from gportuguese.serve import About
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
    """Opens the page, and checks at the end that its console has no unexpected messages."""
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


def test_an_example_starts_a_text_and_stop_stops_it(open_page, url, monkeypatch):
    slow_down(monkeypatch)
    page = open_page(url)
    set_slider(page, "max_tokens", 200)
    page.get_by_role("button", name="Era uma vez").click()
    stop = page.get_by_role("button", name="Parar")
    expect(page.locator("#mirror mark")).not_to_be_empty()
    expect(page.locator("#text")).not_to_be_editable()
    stop.click()
    expect(page.locator("#status")).to_have_text(re.compile("Parado depois de"))
    value = page.locator("#text").input_value()
    assert value.startswith("Era uma vez")
    page.wait_for_timeout(300)
    assert page.locator("#text").input_value() == value
    expect(page.locator("#text")).to_be_editable()


def test_html_in_a_text_is_shown_as_text(open_page, url):
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


def test_a_phone_needs_no_horizontal_scrolling(open_page, url):
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


def test_a_text_longer_than_the_context_is_cut_with_a_notice(open_page, url, writer):
    page = open_page(url)
    words, text = "palavra " * 300, page.locator("#text")
    num_tokens = len(writer.prompt_ids(words))
    text.fill(words)
    shown = f"{num_tokens:,}".replace(",", ".")
    expect(page.locator("#meter")).to_have_text(f"{shown} tokens; o modelo lê os últimos 256")
    expect(page.locator("#slides")).to_have_text(re.compile("mais longo do que o modelo"))
    set_slider(page, "temperature", 0)
    set_slider(page, "repetition_penalty", 1)
    set_slider(page, "max_tokens", 40)
    text.press("Control+Enter")
    expect(page.locator("#status")).to_have_text(re.compile("Pronto: 40 tokens"))
    sampling = Sampling(max_new_tokens=40, top_k=1)
    expect(text).to_have_value(words + "".join(writer.stream(words, sampling, window=True)))
    assert page.locator("#write").bounding_box()["y"] < page.viewport_size["height"]
    text.fill("palavra")
    expect(page.locator("#slides")).to_be_hidden()
    expect(page.locator("#meter")).to_have_text(re.compile(r"^\d de 256 tokens"))


def test_a_text_grows_beyond_the_context_in_steps(open_page, url, writer):
    page = open_page(url)
    start, text = "The history of the city and the river " * 20, page.locator("#text")
    used = len(writer.prompt_ids(start))
    assert 150 < used < 256
    set_slider(page, "temperature", 0)
    set_slider(page, "repetition_penalty", 1)
    set_slider(page, "max_tokens", 200)
    text.fill(start)
    text.press("Control+Enter")
    expect(page.locator("#status")).to_have_text(re.compile("Pronto: 200 tokens"), timeout=60_000)
    # the model reads the whole text until the context is full, then only its last three quarters
    wanted, left = start, 200
    while left > 0:
        step = min(left, max(256 - used, 64))
        wanted += "".join(
            writer.stream(wanted, Sampling(max_new_tokens=step, top_k=1), window=True)
        )
        used, left = used + step, left - step
    expect(text).to_have_value(wanted)
    expect(page.locator("#meter")).to_have_text(re.compile("o modelo lê os últimos 256"))


def test_text_language_theme_and_settings_survive_a_reload(open_page, url):
    page = open_page(url, color_scheme="light")
    set_slider(page, "max_tokens", 10)
    page.get_by_label("Semente").fill("12")
    page.locator("#text").fill("O rio")
    page.locator("#write").click()
    expect(page.locator("#status")).to_have_text(re.compile("semente 12"))
    text, marked = page.locator("#text").input_value(), page.locator("#mirror mark").inner_text()
    page.get_by_role("button", name="English").click()
    page.get_by_role("button", name="Light or dark").click()
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Begin a text. The model goes on.")
    expect(page.locator("#text")).to_have_value(text)
    expect(page.locator("#mirror mark")).to_have_text(marked)
    expect(page.get_by_label("Length")).to_have_value("10")
    expect(page.get_by_label("Seed")).to_have_value("12")
    expect(page.locator("#meter")).to_have_text(re.compile("of 256 tokens"))
    assert page.locator("html").get_attribute("data-theme") == "dark"
    # damaged local storage does not stop the page
    page.evaluate("localStorage.setItem('gpt-pt', '[{')")
    page.reload()
    expect(page.locator("#bars button")).to_have_count(10)


def test_numbers_follow_the_language_shown(open_page, url):
    page = open_page(url)
    expect(page.locator("output[for=temperature]")).to_have_text("0,8")
    set_slider(page, "max_tokens", 5)
    page.locator("#text").fill("palavra " * 300)
    page.locator("#write").click()
    expect(page.locator("#status")).to_have_text(re.compile(r"em \d+(,\d)? s, semente \d+\.$"))
    expect(page.locator("#bars .percent").first).to_have_text(re.compile(r"^\d+,\d%$"))
    expect(page.locator("#meter")).to_have_text(re.compile(r"^\d\.\d{3} tokens"))
    page.get_by_role("button", name="English").click()
    expect(page.locator("output[for=temperature]")).to_have_text("0.8")
    expect(page.locator("#status")).to_have_text(re.compile(r"in \d+(\.\d)? s, seed \d+\.$"))
    expect(page.locator("#bars .percent").first).to_have_text(re.compile(r"^\d+\.\d%$"))
    expect(page.locator("#meter")).to_have_text(re.compile(r"^\d,\d{3} tokens"))


ABOUT = About(
    name="export-0f3a",
    title="Minha GPT",
    parameters=2_615_424,
    languages=("pt", "x-unknown"),
    prompts=("A água é uma", "<b>Lisboa</b>"),
    is_toy=True,
    card="# Minha GPT\n\n<script>alert(1)</script>",
)


def test_the_page_introduces_the_model(open_page, writer):
    with serving(writer, about=ABOUT) as url:
        page = open_page(url)
        expect(page.locator("#model")).to_have_text("Minha GPT")
        facts = page.locator("#facts")
        expect(facts).to_have_text(
            "Parâmetros: 2,6 milhões · Idioma: português, x-unknown · Ficha do modelo"
        )
        expect(page.locator("#toy")).to_have_text(re.compile("é um brinquedo"))
        expect(page.locator("#examples button")).to_have_text(["A água é uma …", "<b>Lisboa</b> …"])
        assert page.locator("#text").get_attribute("placeholder") == "A água é uma…"
        link = page.get_by_role("link", name="Ficha do modelo")
        assert httpx.get(url + link.get_attribute("href")).text == ABOUT.card
        link.press("Enter")
        expect(page.get_by_role("dialog", name="Ficha do modelo")).to_be_visible()
        expect(page.locator("#sheet-text")).to_have_text(ABOUT.card)
        page.keyboard.press("Escape")
        expect(page.locator("#sheet")).to_be_hidden()
        expect(link).to_be_focused()
        page.get_by_role("button", name="English").click()
        expect(facts).to_have_text(
            "Parameters: 2.6 million · Language: Portuguese, x-unknown · Model card"
        )
        # the examples keep the language of the model
        assert page.locator("#examples").get_attribute("lang") == "pt"


def test_the_page_of_a_model_without_a_card(open_page, url):
    page = open_page(url)
    expect(page.locator("#model")).to_have_text("nano")
    expect(page.locator("#facts")).to_be_empty()
    expect(page.locator("#toy")).to_be_hidden()
    expect(page.locator("#examples button").first).to_have_text("Era uma vez …")
    page.get_by_role("button", name="English").click()
    expect(page.locator("#examples button").first).to_have_text("Once upon a time …")


def test_retry_writes_another_text_and_a_seed_repeats_one(open_page, url, writer):
    page = open_page(url)
    text, again = page.locator("#text"), page.get_by_role("button", name="Tentar de novo")
    set_slider(page, "max_tokens", 15)
    set_slider(page, "repetition_penalty", 1)
    expect(again).to_be_disabled()
    page.get_by_label("Semente").fill("41")
    text.fill("In the")
    text.press("Control+Enter")

    def written(seed):
        sampling = Sampling(max_new_tokens=15, top_k=40, top_p=0.95, temperature=0.8, seed=seed)
        return "In the" + writer.write("In the", sampling)

    expect(text).to_have_value(written(41))
    expect(page.locator("#status")).to_have_text(re.compile("semente 41"))
    again.press("Enter")
    expect(page.get_by_label("Semente")).to_have_value("42")
    expect(text).to_have_value(written(42))
    expect(again).to_be_focused()
    page.get_by_label("Semente").fill("")
    again.click()
    expect(page.locator("#status")).not_to_have_text(re.compile("semente 4[12]"))
    assert text.input_value().startswith("In the")
    expect(page.locator("#write")).to_be_visible()
    for value in ("In the", written(42), "In the", written(41), "In the"):
        page.get_by_role("button", name="Desfazer").click()
        expect(text).to_have_value(value)
    expect(again).to_be_disabled()
    text.fill("In the end")
    expect(again).to_be_disabled()


def test_tokens_are_coloured_by_probability_on_demand(open_page, url, writer):
    page = open_page(url)
    text = "🙂 The city of Coração and the United States of America"
    page.locator("#text").fill(text)
    expect(page.locator("#legend")).to_be_hidden()
    page.get_by_role("button", name="Colorir por probabilidade").press("Enter")
    marks = page.locator("#mirror mark")
    expect(marks.first).to_be_attached()
    ids = writer.prompt_ids(text)
    with torch.no_grad():
        probabilities_TV = writer.model(torch.tensor([ids])).logits[0, :-1].softmax(-1)
    wanted, chance, held = [], 1.0, writer.texts.written(ids[0])
    for token, probabilities_V in zip(ids[1:], probabilities_TV, strict=True):
        chance *= probabilities_V[token].item()
        held += writer.texts.written(token)
        whole = held.decode("utf-8", "ignore")
        if not whole:  # part of a character: the next token ends it
            continue
        kind = "p" + str(sum(chance >= least for least in (0.01, 0.1, 0.5)))
        wanted.append([whole, kind])
        chance, held = 1.0, b""
    shown = marks.evaluate_all("all => all.map(e => [e.textContent, e.className])")
    assert shown == wanted
    # the token at the cursor is described in words
    page.locator("#text").evaluate(
        "(area) => { area.focus(); const at = area.value.indexOf('States') + 2;"
        " area.setSelectionRange(at, at); }"
    )
    expect(page.locator("#at")).to_have_text(
        re.compile(r"No cursor: “·States”, (< )?\d+,\d%\. O mais provável era “.+”, \d+,\d%\.")
    )
    # typing updates the colours; switching them off restores the marks
    page.locator("#text").press("Control+End")
    expect(page.locator("#at")).to_have_text(re.compile("Ponha o cursor em uma palavra"))
    page.locator("#text").press_sequentially("x")
    expect(marks.last).to_have_text(re.compile("x$"))
    expect(marks.filter(has_text="States")).to_be_attached()
    page.get_by_role("button", name="Colorir por probabilidade").click()
    expect(marks).to_have_count(0)


def test_the_python_program_writes_the_same_text_as_the_page(open_page, url, writer):
    page = open_page(url, permissions=["clipboard-read", "clipboard-write"])
    set_slider(page, "max_tokens", 15)
    page.get_by_label("Semente").fill("5")
    page.locator("#text").fill('In "the"\ncity, ação')
    expect(page.locator("#bars button")).to_have_count(10)
    page.get_by_role("button", name="Usar em Python").click()
    sheet = page.get_by_role("dialog", name="Usar em Python")
    sheet.get_by_role("button", name="Copiar").click()
    expect(page.locator("#sheet-status")).to_have_text("Texto copiado.")
    program = page.evaluate("navigator.clipboard.readText()")
    sheet.get_by_role("button", name="Fechar").click()
    page.locator("#write").click()
    expect(page.locator("#status")).to_have_text(re.compile("Pronto"))
    written = page.locator("#text").input_value().removeprefix('In "the"\ncity, ação')
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == (written + "\n", "")


def test_an_error_below_a_long_text_is_visible(open_page, url):
    page = open_page(url, viewport={"width": 390, "height": 700})
    page.locator("#text").fill("palavra\n" * 200)
    expect(page.locator("#bars button")).to_have_count(10)
    page.route("**/v1/completions", lambda route: route.abort())
    page.evaluate("scrollTo(0, 300)")
    page.locator("#write").click()
    alert = page.get_by_role("alert")
    expect(alert).to_have_text(re.compile("não responde"))
    box = alert.bounding_box()
    assert box["y"] >= 0
    assert box["y"] + box["height"] <= 700
    assert all("ERR_" in line for line in open_page.complaints)
    open_page.complaints.clear()


def test_a_busy_server_is_reported(open_page, url):
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


@pytest.mark.slow  # starts a separate process, so that it can be killed
def test_a_crashed_server_is_reported(open_page):
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


def test_the_page_asks_for_the_token(open_page, writer):
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
        stored = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
        assert "segredo" not in stored
        assert page.context.cookies() == []
        assert all("401" in line for line in open_page.complaints)
        open_page.complaints.clear()

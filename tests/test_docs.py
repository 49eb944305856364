"""What README and docs say is so: links, commands, settings and measured numbers."""

import ast
import importlib.util
import json
import pkgutil
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

import gportuguese
from gportuguese import cli
from gportuguese.cli.arguments import make_parser
from gportuguese.config import config_of, load_config

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
READMES = [ROOT / "README.md", ROOT / "README.pt.md"]
OTHERS = ["CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "notebooks/README.md"]
PAGES = [*READMES, *(ROOT / name for name in OTHERS), *sorted((ROOT / "docs").rglob("*.md"))]
REPOSITORY = "https://github.com/gportuguese/gportuguese/blob/main/"

spec = importlib.util.spec_from_file_location("docs_pages", ROOT / "scripts" / "docs_pages.py")
docs_pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(docs_pages)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@cache
def text_of(page):
    return page.read_text(encoding="utf-8")


@cache
def tokens_of(page):
    return MarkdownIt("commonmark").enable("table").parse(text_of(page))


def blocks(page, *kinds):
    """The fenced blocks of these languages; `""` stands for an indented block."""
    for token in tokens_of(page):
        if token.type in ("fence", "code_block") and token.info in kinds:
            yield token.content


@cache
def anchors(page):
    """The anchors of a page's headings, as GitHub and the site make them."""
    found = set(re.findall(r'<a id="(.+?)">', text_of(page)))
    for heading in re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE):
        plain = re.sub(r"<[^>]+>|[^\w\s-]", "", heading).strip().lower()
        found.add(re.sub(r"[-\s]+", "-", plain))
    return found


@every_page
def test_links_lead_somewhere(page):
    targets = [
        child.attrs.get("href") or child.attrs.get("src")
        for token in tokens_of(page)
        for child in token.children or ()
        if child.type in ("link_open", "image")
    ]
    targets += re.findall(r'(?:href|src)="([^"]+)"', text_of(page))
    for target in targets:
        if target.startswith(REPOSITORY):
            target = "/" + target.removeprefix(REPOSITORY)
        elif re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = ROOT / path[1:] if path.startswith("/") else page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.resolve()), target


# --- commands ---

OTHER_PROGRAMS = {"cat", "cd", "git", "hf", "jupyter", "lm_eval", "source", "tensorboard"}
GONE = {"scripts/compare_scratch.py"}  # older results name the script of their commit


def commands(page):
    """The command lines of a page as lists of words."""
    for block in blocks(page, "bash", ""):
        if re.match(r"\w+: ", block):  # YAML
            continue
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r" && | \| ", line):
                if words := shlex.split(part, comments=True):
                    yield words


def own_configs(folder):
    """Writes the YAML blocks of all pages that begin with a comment `# NAME.yaml` into a folder."""
    for block in (block for page in PAGES for block in blocks(page, "yaml")):
        if name := re.match(r"# ([\w-]+\.yaml)", block):
            (folder / name[1]).write_text(block, encoding="utf-8")


@every_page
def test_commands_are_real(page, tmp_path, monkeypatch):
    own_configs(tmp_path)
    monkeypatch.chdir(tmp_path)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for program, *words in commands(page):
        line = shlex.join([program, *words])
        if program == "torchrun":
            program, words = "gpt-pt", words[words.index("gportuguese") + 1 :]
        if program == "gpt-pt":
            if words in (["--help"], ["--version"]):
                continue
            args = make_parser().parse_args(words)
            if args.command != "survey":
                load_config(args.config, tuple(args.set))
        elif program == "make":
            for target in words:
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), line
        elif program == "python" and words[0] == "-m":
            assert words[1] in ("pytest", "venv"), line
        elif program == "python":
            if words[0] in GONE:
                continue
            source = (ROOT / words[0]).read_text(encoding="utf-8")
            if "from comparison import" in source:  # options that several scripts share
                source += (ROOT / "scripts" / "comparison.py").read_text(encoding="utf-8")
            for option in re.findall(r"--[\w-]+", " ".join(words)):
                assert f'"{option}"' in source or option == "--", line
        elif program.endswith("pip"):
            for extra in re.findall(r"^\.\[(\w+)\]", " ".join(words), re.MULTILINE):
                assert re.search(rf"^{extra} = \[", project, re.MULTILINE), line
        else:
            assert program in OTHER_PROGRAMS, line


QUICK = ("config", "status")


@every_page
def test_quick_commands_run(page, tmp_path, monkeypatch, capsys):
    own_configs(tmp_path)
    monkeypatch.chdir(tmp_path)
    for program, *words in commands(page):
        if program == "gpt-pt" and words[0] in (*QUICK, "--version", "--help"):
            with pytest.raises(SystemExit) as exit_:
                cli.main(words)
            assert exit_.value.code == 0, words
            assert capsys.readouterr().out


def test_the_list_of_configs_is_that_of_the_page(capsys):
    with pytest.raises(SystemExit):
        cli.main(["config", "--list"])
    assert capsys.readouterr().out in list(blocks(ROOT / "docs" / "recipes.md", "text"))


@every_page
def test_configs_and_programs_on_pages_are_right(page):
    for block in blocks(page, "yaml"):
        tree = yaml.safe_load(block)
        if isinstance(tree, dict):  # the defaults of lists stand alone
            config_of({"name": "page"} | tree, (), str(page))
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "gportuguese":
                assert {name.name for name in node.names} <= set(gportuguese.__all__), block
            elif isinstance(node, ast.ImportFrom) and node.module.startswith("gportuguese."):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names), block


# --- the generated pages ---


def test_every_setting_and_command_has_a_meaning():
    keys = docs_pages.all_keys()
    assert [key.name for key in keys if not key.meaning] == []
    page = text_of(ROOT / "docs" / "configuration.md")

    def leaves(tree, prefix=""):
        for name, value in tree.items():
            if isinstance(value, dict):
                yield from leaves(value, f"{prefix}{name}.")
            else:
                yield prefix + name

    for name in leaves(gportuguese.config.as_tree(load_config())):
        assert f'<a id="{name}"></a>`{name}`' in page, name
    listed = text_of(ROOT / "docs" / "commands.md")
    for name in re.findall(r"^    ([a-z-]+) ", make_parser().format_help(), re.MULTILINE):
        assert f"\n## {name}\n" in listed, name


@pytest.mark.parametrize("name", ["configuration.md", "commands.md"])
def test_generated_parts_are_up_to_date(name):
    page = text_of(ROOT / "docs" / name)
    assert docs_pages.page_with_part(name, page) == page, "run: python scripts/docs_pages.py"


def test_names_of_the_python_reference_exist():
    for name in re.findall(r"^::: ([\w.]+)$", text_of(ROOT / "docs" / "api.md"), re.MULTILINE):
        pkgutil.resolve_name(name)


def test_values_are_said_in_words():
    values = {key.name: key.values for key in docs_pages.all_keys()}
    assert values["corpus.valid_per_mille"] == "whole number, at least 1 and below 1000"
    assert values["train.grad_clip"] == "number, above 0, or null"
    assert values["train.optimizer"] == "`adamw` or `muon`"
    assert values["train.phases"] == "list ([PhaseConfig](#phaseconfig))"


# --- numbers ---
#
# On README, the guides and the list of results, a decimal number outside of code stands in a paragraph, list item or
# table row that links to a page of results or to the table of recipes. That page holds the number, perhaps with more
# digits. A link before a table counts for its rows. Whole numbers of a thousand or more are checked where there is a link.

NUMBER = re.compile(r"(?<![\w.,/:-])\d+(?:[.,]\d+)+(?![\w:-])")
VERSION = re.compile(r"\b(Python|PyTorch|CUDA|transformers|KerasHub) \d[\d.]*")
GUIDES = [
    page
    for page in PAGES
    if (page.parent != RESULTS or page.name == "index.md")
    and page.name not in ("configuration.md", "commands.md")
    and str(page.relative_to(ROOT)) not in OTHERS
]


def numbers(page, text):
    """The decimal numbers of a text in English notation."""
    swap = str.maketrans(".,", ",.") if page.name in ("README.pt.md", "experimente.md") else {}
    return {number.translate(swap) for number in NUMBER.findall(VERSION.sub("", text))}


def claims(page):
    """The paragraphs, list items and table rows of a page, without code; rows with the paragraph before them."""
    text = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^ {4}.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"`[^`]*`|<!-- plan -->.*?<!-- end -->", "", text, flags=re.DOTALL)
    before = ""
    for paragraph in re.split(r"\n\s*\n|\n(?=- )", text):
        if paragraph.startswith("|"):
            yield from (f"{before}\n{row}" for row in paragraph.split("\n"))
        else:
            yield paragraph
            before = paragraph


def sources_of(page, claim):
    """The pages of results and recipes that a claim links to."""
    for target in re.findall(r"\]\(([^)#:]+)", claim):
        path = (page.parent / target).resolve()
        if path.is_file() and (path.parent == RESULTS or path.name == "recipes.md"):
            yield path


def is_on(number, text):
    digits = len(number.partition(".")[2])
    values = (float(each.replace(",", "")) for each in re.findall(r"\d[\d,]*(?:\.\d+)?", text))
    return any(f"{value:.{digits}f}" == number.replace(",", "") for value in values)


def test_a_number_may_have_fewer_digits_than_on_its_page():
    assert is_on("2.063", "at 2.0629 bits")
    assert is_on("24,318", "24,318 pages")
    assert not is_on("2.064", "at 2.0629 bits")


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))
def test_numbers_stand_on_the_page_of_results_that_is_linked(page):
    for claim in claims(page):
        found = numbers(page, claim)
        sources = [text_of(source) for source in sources_of(page, claim)]
        unproven = [number for number in found if "." in number and not sources]
        assert not unproven, f"{unproven}: no link to docs/results: {claim}"
        for number in found if sources else ():
            assert any(is_on(number, text) for text in sources), f"{number}: {claim}"


def test_readme_has_the_two_commands():
    for page in READMES:
        targets = re.findall(r"(?:^    |&& )make (\w+)", text_of(page), re.MULTILINE)
        assert targets == ["setup", "demo", "check"]
        assert len(text_of(page).splitlines()) <= 130


@every_page
def test_files_that_pages_name_are_there(page):
    names = re.findall(r"configs/[\w-]+\.yaml|scripts/\w+\.(?:py|sh)", text_of(page))
    for name in set(names) - GONE:
        assert (ROOT / name).is_file(), name


def test_the_runs_in_the_result_file_are_those_on_the_page():
    page = (RESULTS / "alignment.md").read_text(encoding="utf-8")
    for line in (RESULTS / "alignment.jsonl").read_text(encoding="utf-8").splitlines():
        for value in json.loads(line)["bits_per_byte"]["valid"].values():
            assert f"{value:.4f}" in page, line


def test_the_output_shown_is_the_measured_one():
    """The epoch tables in the outputs on README and guides are those of a page of results, in a terminal's columns."""
    measured = {
        " ".join(re.findall(r"[^\s|]+", row))
        for page in RESULTS.glob("*.md")
        for row in re.findall(r"^\| \d .*$", text_of(page), re.MULTILINE)
    }
    shown = [
        " ".join(row.split())
        for page in GUIDES
        for block in blocks(page, "text")
        for row in re.findall(r"^ +\d [a-z]+ .*\d:\d\d$|^ +0 before .*$", block, re.MULTILINE)
    ]
    assert len(shown) >= 12
    assert set(shown) <= measured

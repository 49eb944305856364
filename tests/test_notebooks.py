"""The notebooks are in step with their sources, show no path of a machine, and name what exists."""

import re
import runpy
import shlex
from types import SimpleNamespace

import pytest

from gportuguese import load_config
from gportuguese.cli.arguments import make_parser

nbformat = pytest.importorskip("nbformat", reason="needs pip install '.[notebooks]'")

BADGE = "https://colab.research.google.com/github/gportuguese/gportuguese/blob/main/notebooks/"
GITHUB = "https://github.com/gportuguese/gportuguese/blob/main/"


@pytest.fixture(scope="module")
def script(request):
    """The functions of scripts/notebooks.py."""
    return SimpleNamespace(**runpy.run_path(str(request.config.rootpath / "scripts/notebooks.py")))


@pytest.fixture(scope="module")
def names(script):
    return sorted(path.stem for path in script.NOTEBOOKS.glob("*.py"))


def test_there_is_one_notebook_for_each_source(script, names):
    assert [name.partition("_")[0] for name in names] == [f"0{number}" for number in range(8)]
    assert sorted(path.stem for path in script.NOTEBOOKS.glob("*.ipynb")) == names


def test_cells_are_those_of_the_source(script, names):
    for name in names:
        wanted = script.source_of(name)
        script.tidy(wanted, name)
        found = script.read(name)
        nbformat.validate(found)
        assert [(c.cell_type, c.id, c.source) for c in found.cells] == [
            (c.cell_type, c.id, c.source) for c in wanted.cells
        ], f"run: make notebooks (or scripts/notebooks.py {name})"
        assert found.metadata == wanted.metadata


def test_notebooks_are_executed_in_order_and_show_nothing_of_the_machine(script, names):
    for name in names:
        notebook = script.read(name)
        assert script.private_parts(notebook) == []
        codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
        if name in script.NOT_EXECUTED:
            assert not any(cell.outputs for cell in codes)
            continue
        assert [cell.execution_count for cell in codes] == list(range(1, len(codes) + 1)), name
        pictures = [
            out for cell in codes for out in cell.outputs if "image/png" in out.get("data", {})
        ]
        assert pictures, name


def test_the_files_are_small(script):
    sizes = {path.name: path.stat().st_size for path in script.NOTEBOOKS.glob("*.ipynb")}
    assert sum(sizes.values()) < 3e6, sizes


def test_the_first_cell_says_what_how_long_and_links_to_colab(script, names):
    for name in names:
        first = script.read(name).cells[0].source
        assert first.startswith(f"# {int(name[:2])}. "), name
        assert f"({BADGE}{name}.ipynb)" in first, name
        assert "**Time**" in first, name
        assert "**You " in first, name


def test_links_lead_to_files_that_exist(script, names, request):
    links = {
        link
        for name in names
        for cell in script.read(name).cells
        if cell.cell_type == "markdown"
        for link in re.findall(r"\]\(([^)\s]+)\)", cell.source)
    }
    for link in links:
        if link.startswith(GITHUB):
            assert (request.config.rootpath / link.removeprefix(GITHUB)).is_file(), link
        elif not link.startswith("https://"):
            assert (script.NOTEBOOKS / link).is_file(), link


def commands_of(notebook):
    """The `gpt-pt` commands of code cells and of indented text."""
    lines = [line for cell in notebook.cells for line in cell.source.splitlines()]
    return [
        shlex.split(line.strip().lstrip("!").removesuffix(" 2>&1 | cat"), comments=True)[1:]
        for line in lines
        if re.match(r"(!|    )gpt-pt ", line)
    ]


def test_commands_parse_and_their_settings_are_valid(script, names):
    num_commands = 0
    for name in names:
        for words in commands_of(script.read(name)):
            arguments = make_parser().parse_args(words)
            if hasattr(arguments, "set"):
                load_config(arguments.config, tuple(arguments.set))
            num_commands += 1
    assert num_commands >= 10


def test_the_published_table_is_that_of_the_docs(script, request):
    page = (request.config.rootpath / "docs/results/published.md").read_text(encoding="utf-8")
    (source,) = (
        cell.source for cell in script.read("05_epoch_table").cells if "PUBLISHED = " in cell.source
    )
    rows = [line.split(",") for line in source.split('"""')[1].splitlines()[2:]]
    table = [
        line.strip("| ").split(" | ")[:5] for line in page.splitlines() if re.match(r"\| \d", line)
    ]
    assert [[cell or "-" for cell in row] for row in rows] == table


def test_the_estimate_for_colab_is_that_of_the_recipes(script, request):
    page = (request.config.rootpath / "docs/recipes.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| T4, 15 GB \| `t4` \|.*$", page, re.MULTILINE)
    gigabytes, hours = row.strip("| ").split(" | ")[3:5]
    first = script.read("00_colab").cells[0].source
    assert f"{hours} hours of training on a T4 and {gigabytes} GB of its memory" in first


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("loss 5.4839 of 4,096 in 0:01:17", "loss 5.4901 of 4,096 in 0:02:50"),
        ("| 1 | 5.97 |\n| --- | --- |", "| 1  | 5.99  |\n| ----- | --- |"),
        ("-0.01", "0.01"),
        ("3529.08", "3600.5"),
        ("1e-3", "1.01e-3"),
    ],
)
def test_rounding_and_times_are_no_difference(script, old, new):
    assert script.difference(old, new) is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("loss 5.4839", "loss 6.1", "5.4839 against 6.1"),
        ("documents 4,096", "documents 4,097", "4,096 against 4,097"),
        ("focus 1.0", "mean 1.0", "'focus 1.0' is now 'mean 1.0'"),
        ("one\ntwo", "one", "2 lines of text were written, now 1"),
        ("loss nan", "loss 1.0", "is now"),
    ],
)
def test_other_differences_are_named(script, old, new, said):
    assert said in script.difference(old, new)


def notebook(source="1", text="loss 5.0", name="stdout", tags=()):
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})
    cell.outputs = [nbformat.v4.new_output("stream", name=name, text=text)]
    return nbformat.v4.new_notebook(cells=[cell])


def test_notebooks_are_compared_cell_by_cell(script):
    assert script.differences(notebook(), notebook()) == []
    (found,) = script.differences(notebook(), notebook(text="loss 6.0"))
    assert found == "code cell 1: loss 5.0 is now loss 6.0: 5.0 against 6.0"
    assert script.differences(notebook(tags=["varies"]), notebook(text="other")) == []
    (found,) = script.differences(notebook(), notebook(source="2"))
    assert "make notebooks" in found
    unprinted = notebook()
    unprinted.cells[0].outputs = []
    assert script.differences(notebook(tags=["varies"]), unprinted)


@pytest.mark.parametrize(
    "path", ["/home/ana/x.csv", "/tmp/tmpab12/a", "/usr/lib/python3", "/root/x"]
)
def test_paths_and_warnings_are_found(script, path):
    (found,) = script.private_parts(notebook(text=f"saved {path}"))
    assert "cell 1 shows a path or address of this machine" in found
    (found,) = script.private_parts(notebook(text="a warning", name="stderr"))
    assert "standard error: a warning" in found
    assert script.private_parts(notebook(text="3 / 4, and/or")) == []

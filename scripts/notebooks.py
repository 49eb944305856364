"""Executes the notebooks and writes them with their outputs, or compares new outputs with the committed ones.

    python scripts/notebooks.py                 # writes notebooks/*.ipynb from notebooks/*.py
    python scripts/notebooks.py 02_tokenizer    # one of them
    python scripts/notebooks.py --check         # executes them, writes nothing; exit code 1 if a table differs

They run in the folder given by --folder (the current one), and so reuse its `artifacts`. `make notebooks` runs
`make demo` first.
"""

import argparse
import os
import re
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NOT_EXECUTED = {"00_colab"}
"""It needs a GPU, the network and a Google account."""
VARIES = "varies"
"""Tag of a cell whose words depend on the machine: `--check` looks only for an output of the same kind."""
RELATIVE, ABSOLUTE = 0.03, 0.03
"""By how much a decimal number may differ on another machine. Whole numbers must be equal."""

_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?%?(?![\w])")
_CLOCK = re.compile(r"\b(?:\d+:)?\d+:\d\d\b")
_PRIVATE = re.compile(r"/(?:home|root|tmp|work|usr|opt|Users|content)/[\w.-]+|\b0x[0-9a-f]{6,}")


def main():
    """Executes the notebooks named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="such as 02_tokenizer (default: all)")
    parser.add_argument("--check", action="store_true", help="compare with the committed outputs")
    parser.add_argument("--folder", type=Path, default=Path(), help="where to run them")
    args = parser.parse_args()
    known = sorted(path.stem for path in NOTEBOOKS.glob("*.py"))
    if unknown := set(args.names) - set(known):
        parser.error(f"no notebook {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    problems = []
    for name in args.names or known:
        print(name, flush=True)
        notebook = source_of(name)
        if name not in NOT_EXECUTED:
            execute(notebook, args.folder)
        tidy(notebook, name)
        problems += [f"{name}, {problem}" for problem in private_parts(notebook)]
        if args.check:
            problems += [f"{name}, {problem}" for problem in differences(read(name), notebook)]
        elif not problems:
            write(name, notebook)
    if problems:
        sys.exit("\n".join(problems))


def path_of(name):
    """The file of a notebook."""
    return NOTEBOOKS / f"{name}.ipynb"


def read(name):
    """The committed notebook."""
    return nbformat.read(path_of(name), as_version=4)


def write(name, notebook):
    """Writes a notebook; raises `ValidationError` if it is none."""
    nbformat.validate(notebook)
    nbformat.write(notebook, path_of(name))


def source_of(name):
    """The notebook of a .py, without outputs."""
    return jupytext.read(NOTEBOOKS / f"{name}.py")


def execute(notebook, folder):
    """Runs all cells in a fresh kernel; raises the error of a cell that fails."""
    # `!gpt-pt` must find this environment's command even if it is not activated
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],  # the kernel warns of its sockets on this machine
        resources={"metadata": {"path": str(folder)}},
    ).execute()


def tidy(notebook, name):
    """Removes what differs from run to run without a change of content."""
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{name.partition('_')[0]}-{number:02d}"
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    notebook.nbformat_minor = 5
    notebook.metadata = {
        "jupytext": {"formats": "ipynb,py:percent"},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    if name in NOT_EXECUTED:
        notebook.metadata |= {"accelerator": "GPU", "colab": {"gpuType": "T4"}}


def _joined(outputs):
    """The outputs, neighbouring texts of one stream joined: how they are cut depends on the timing."""
    joined = []
    for output in outputs:
        last = joined[-1] if joined else None
        if (
            last is not None
            and output.output_type == last.output_type == "stream"
            and output.name == last.name
        ):
            last.text += output.text
        else:
            joined.append(output)
    return joined


def private_parts(notebook):
    """Messages about outputs that show a path of this machine, a warning or an error."""
    found = []
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", ()):
            text = text_of(output)
            if output.output_type == "error" or output.get("name") == "stderr":
                found.append(f"cell {number} writes to standard error: {text[:300]}")
            elif "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
                found.append(f"cell {number} shows a widget, which GitHub does not: {text}")
            elif "\x1b[" in text:
                found.append(f"cell {number} writes codes for a terminal")
            elif match := _PRIVATE.search(text):
                found.append(f"cell {number} shows a path or address of this machine: {match[0]}")
    return found


def differences(old, new):
    """Messages about cells whose outputs differ by more than another machine explains."""
    codes = [[cell for cell in each.cells if cell.cell_type == "code"] for each in (old, new)]
    if [cell.source for cell in codes[0]] != [cell.source for cell in codes[1]]:
        return ["the .ipynb has other cells than the .py; run: make notebooks"]
    found = []
    for number, (one, two) in enumerate(zip(*codes, strict=True), 1):
        kinds = [[kind_of(output) for output in cell.outputs] for cell in (one, two)]
        if kinds[0] != kinds[1]:
            found.append(f"code cell {number}: outputs were {kinds[0]}, now {kinds[1]}")
        elif VARIES not in one.metadata.get("tags", ()):
            for before, after in zip(one.outputs, two.outputs, strict=True):
                if problem := difference(text_of(before), text_of(after)):
                    found.append(f"code cell {number}: {problem}")
    return found


def kind_of(output):
    """`stream`, or the richest type of a display."""
    types = output.get("data", {})
    ranked = ("image/png", "text/markdown", "text/html", "text/plain")
    return next((each for each in ranked if each in types), output.output_type)


def text_of(output):
    """The text of an output: what it prints, Markdown if it has some; empty for a picture."""
    data = output.get("data", {})
    if "image/png" in data:
        return ""
    return output.get("text") or data.get("text/markdown") or data.get("text/plain", "")


def difference(old, new):
    """The first difference of two texts in words, or None: numbers are compared one by one.

    Decimals may differ by 3 %, or by 0.03; durations are not compared, and neither are the widths of
    columns.

    >>> difference("loss 5.4839 of 4,096 in 0:01:17", "loss 5.4901 of 4,096 in 0:02:50")
    >>> difference("loss 5.4839", "loss 6.1")
    'loss 5.4839 is now loss 6.1: 5.4839 against 6.1'
    """
    lines = [_CLOCK.sub("time", text).splitlines() for text in (old, new)]
    if len(lines[0]) != len(lines[1]):
        return f"{len(lines[0])} lines of text were written, now {len(lines[1])}"
    for one, two in zip(*lines, strict=True):
        if _words(one) != _words(two):
            return f"{one.strip()!r} is now {two.strip()!r}"
        for before, after in zip(_NUMBER.findall(one), _NUMBER.findall(two), strict=True):
            if not _is_near(before, after):
                return f"{one.strip()} is now {two.strip()}: {before} against {after}"
    return None


def _words(line):
    """The line without its numbers, and with rules and gaps of one length."""
    return re.sub(r"-{2,}", "--", " ".join(_NUMBER.sub(" # ", line).split()))


def _is_near(before, after):
    one, two = (float(text.replace(",", "").rstrip("%")) for text in (before, after))
    if re.fullmatch(r"[-+\d,]+", before) and re.fullmatch(r"[-+\d,]+", after):
        return one == two
    return abs(one - two) <= max(ABSOLUTE, RELATIVE * abs(one))


if __name__ == "__main__":
    main()

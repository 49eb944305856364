"""Our corpus stage against the wikiextractor command line, in turn, on one dump.

    python scripts/bench_corpus.py DUMP.xml.bz2 --rendered PAGES.jsonl.gz --runs 5

Both clean every page (no minimum length) with the same number of processes. It prints pages per second,
their ratio and the peak memory of the whole process tree; then ours with the search for near-duplicates,
which wikiextractor lacks, and the tokenizer and tokens stages.

It also counts leftovers and holes per megabyte of text, for both and for mwparserfromhell's `strip_code`
(pip install mwparserfromhell). `--rendered` takes a file with `id` and `text` of pages as a browser shows
them, and adds recall and precision of prose words and the share of paragraphs that are one line.
`--runs 0` prints only these.
"""

import argparse
import bz2
import contextlib
import gzip
import importlib.util
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from functools import partial
from importlib import metadata
from pathlib import Path

import pyarrow.parquet as pq

from gportuguese import Pipeline, corpus, load_config
from gportuguese.dump import read_pages
from gportuguese.dump.reader import RawPage, read_header, stream_starts
from gportuguese.wikitext import Language, count_faults, language_of


def tree_memory_bytes(root: int) -> int:
    """Memory of a process and its descendants, with shared pages counted once (PSS)."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int(
                    (folder / "stat").read_text().rsplit(")")[1].split()[1]
                )
            except (OSError, IndexError):
                continue
    family, grew = {root}, True
    while grew:
        found = {pid for pid, parent in parents.items() if parent in family} - family
        family |= found
        grew = bool(found)
    total = 0
    for pid in family:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        match = re.search(r"Pss:\s+(\d+)", rollup)
        total += int(match[1]) * 1024 if match else 0
    return total


def watched(words: list[str]) -> tuple[float, int]:
    """Seconds and peak memory of a command's whole process tree."""
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peak, errors = [0], []
    reader = threading.Thread(target=lambda: errors.append(process.stderr.read()))
    reader.start()
    while process.poll() is None:
        peak[0] = max(peak[0], tree_memory_bytes(process.pid))
        time.sleep(0.2)
    seconds = time.perf_counter() - start
    reader.join()
    if process.returncode:
        sys.exit(f"{' '.join(words)}\n{errors[0]}")
    return seconds, peak[0]


def theirs(dump: Path, out: Path, processes: int) -> list[str]:
    """The wikiextractor command line."""
    module = ["-m", "wikiextractor.WikiExtractor", str(dump), "--no-templates", "--json", "-q"]
    return [sys.executable, *module, "--processes", str(processes), "-o", str(out)]


def ours(
    dump: Path,
    out: Path,
    processes: int,
    stage: str = "corpus",
    dedup: str = "off",
    templates: str = "expand",
) -> list[str]:
    """The same with this project; pages of any length are kept."""
    sets = [
        f"dump.source={dump}",
        f"runtime={{artifacts_dir: '{out}', num_workers: {processes}, device: cpu}}",
        f"corpus={{min_chars: 1, dedup: {dedup}, templates: {templates}, valid_per_mille: 10}}",
        "tokenizer.vocab_size=50257",
    ]
    words = [sys.executable, "-m", "gportuguese", stage]
    return words + [word for each in sets for word in ("--set", each)]


ours_tables = partial(ours, templates="tables")
ours_near = partial(ours, dedup="near")


def their_texts(out: Path) -> dict[str, str]:
    """The texts that wikiextractor wrote, by the page's id."""
    lines = (line for path in sorted(out.rglob("wiki_*")) for line in path.open(encoding="utf-8"))
    return {str(row["id"]): row["text"] for row in map(json.loads, lines)}


def our_texts(dump: Path, out: Path, processes: int) -> dict[str, str]:
    """The texts of our corpus stage, by the page's id."""
    pipeline = Pipeline(load_config(None, tuple(ours(dump, out, processes)[5::2])))
    folder = pipeline.open("corpus").folder
    tables = (pq.read_table(folder / f"{split}.parquet") for split in corpus.SPLITS)
    return {row["id"]: row["text"] for table in tables for row in table.to_pylist()}


def stripped(page: RawPage, language: Language) -> str:
    """The text of a page by mwparserfromhell, as the Hub's Wikipedia data set is made.

    As there, files, categories, references and tables are removed first, and each section is stripped
    by itself.
    """
    import mwparserfromhell

    code = mwparserfromhell.parse(page.wikitext)
    for link in code.filter_wikilinks():
        if str(link.title).partition(":")[0].strip().lower() in language.hidden_prefixes:
            with contextlib.suppress(ValueError):  # its parent was removed
                code.remove(link)
    for tag in code.filter_tags(matches=lambda tag: str(tag.tag).lower() in ("ref", "table")):
        with contextlib.suppress(ValueError):
            code.remove(tag)
    sections = code.get_sections(flat=True, include_lead=True, include_headings=True)
    return "\n\n".join(section.strip_code().strip() for section in sections)


WORD = re.compile(r"[^\W\d_]{2,}")


def compared(text: str, rendered: str) -> Counter[str]:
    """Compares a text with the paragraphs that a browser shows.

    `kept` of the `words` shown are in the text; `right` of the words `made` in its prose lines are
    shown. A line is prose if a fifth of its runs of three words is shown, as the rendering has no
    lists or headings. `whole` of `paragraphs` paragraphs begin and end where a line does.
    """

    def runs(words: list[str]) -> list[tuple[str, ...]]:
        return list(zip(words, words[1:], words[2:], strict=False))

    lines = [words for line in text.split("\n") if (words := WORD.findall(line))]
    paragraphs = [words for line in rendered.split("\n") if (words := WORD.findall(line))]
    shown = {run for words in paragraphs for run in runs(words)}
    prose = [words for words in lines if 5 * sum(run in shown for run in runs(words)) > len(words)]
    wanted = Counter(word for words in paragraphs for word in words)
    made = Counter(word for words in prose for word in words)
    ends = {(*words[:3], *words[-3:]) for words in lines}
    long = [words for words in paragraphs if len(words) >= 8]
    return Counter(
        words=wanted.total(),
        kept=(wanted & Counter(word for words in lines for word in words)).total(),
        made=made.total(),
        right=(wanted & made).total(),
        paragraphs=len(long),
        whole=sum((*words[:3], *words[-3:]) in ends for words in long),
    )


def print_quality(dump: Path, rendered: Path | None, texts: dict[str, dict[str, str]]) -> None:
    """Prints leftovers and holes of each cleaner; with `rendered`, also recall and precision."""
    header, shown = read_header(dump), {}
    language = language_of(header.language, header.namespaces)
    if rendered is not None:
        with gzip.open(rendered, "rt", encoding="utf-8") as file:
            shown = {str(row["id"]): row["text"] for row in map(json.loads, file)}
    wanted = set.intersection(*map(set, texts.values()), *([set(shown)] if shown else []))
    if importlib.util.find_spec("mwparserfromhell"):
        pages = (page for page in read_pages(dump) if str(page.id) in wanted)
        texts["mwparserfromhell"] = {str(page.id): stripped(page, language) for page in pages}
    scores = ("recall", "precision", "whole paragraphs") if shown else ()
    print(f"\n| {len(wanted):,} pages | {' | '.join(('leftovers/MB', 'holes/MB', *scores))} |")
    print("| --- " * (3 + len(scores)) + "|")
    for name, each in texts.items():
        faults = [count_faults(each[page], language) for page in wanted]
        megabytes = sum(len(each[page].encode()) for page in wanted) / 1e6
        cells = [f"{sum(numbers) / megabytes:.1f}" for numbers in zip(*faults, strict=True)]
        if shown:
            counts = sum((compared(each[page], shown[page]) for page in wanted), Counter())
            ratios = (("kept", "words"), ("right", "made"), ("whole", "paragraphs"))
            cells += [f"{counts[part] / counts[total]:.2%}" for part, total in ratios]
        print(f"| {name} | {' | '.join(cells)} |")


def repeated(dump: Path, times: int, out: Path) -> Path:
    """A dump that holds the pages of a multistream dump several times."""
    data, starts = dump.read_bytes(), list(stream_starts(dump))
    head, body, foot = data[: starts[1]], data[starts[1] : starts[-1]], data[starts[-1] :]
    if b"<page>" in bz2.decompress(foot):
        sys.exit("the last stream of this dump holds pages")
    out.write_bytes(head + body * times + foot)
    return out


def main() -> None:
    """Prints the figures as Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dump", type=Path)
    parser.add_argument("--rendered", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--times", type=int, default=10, help="of the sample, for the memory")
    args = parser.parse_args()
    num_pages = sum(1 for _ in read_pages(args.dump))
    scratch = Path(tempfile.mkdtemp())
    makers = {
        "wikiextractor": theirs,
        "ours, tables": ours_tables,
        "ours": ours,
        "ours, near-duplicates": ours_near,
    }
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    peaks: dict[str, list[int]] = {name: [] for name in makers}
    for run in range(args.runs + 1):  # the first is the warm-up
        for name, command in makers.items():
            shutil.rmtree(scratch / name, ignore_errors=True)
            took, peak = watched(command(args.dump, scratch / name, args.processes))
            if run:
                seconds[name].append(took)
                peaks[name].append(peak)
    texts = {
        "ours": our_texts(args.dump, scratch / "ours", args.processes),
        "wikiextractor": their_texts(scratch / "wikiextractor"),
    }
    num_bytes = sum(len(text.encode()) for text in texts["ours"].values())
    print_quality(args.dump, args.rendered, texts)
    if args.runs:
        print_speed(args, num_pages, seconds, peaks)
        print_more_speed(args, num_pages, num_bytes, scratch)
    print(
        f"\n{args.dump.name}: {num_pages:,} pages; {args.processes} processes, medians of {args.runs} runs "
        f"in turn after a warm-up, start of the program included; {os.cpu_count()} cores, "
        f"{platform.machine()}, Python {platform.python_version()}, wikiextractor "
        f"{metadata.version('wikiextractor')}, gportuguese {metadata.version('gportuguese')}"
    )
    shutil.rmtree(scratch)


def print_speed(
    args: argparse.Namespace,
    num_pages: int,
    seconds: dict[str, list[float]],
    peaks: dict[str, list[int]],
) -> None:
    """Prints pages a second, peak memory, and the ratio."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print("\n| | seconds | pages/s | peak memory (MB) |\n| --- | --- | --- | --- |")
    for name, median in medians.items():
        rate = num_pages / median
        print(f"| {name} | {median:.1f} | {rate:,.0f} | {max(peaks[name]) / 1e6:.0f} |")
    for name in [*medians][1:]:
        print(f"ratio of pages/s, {name}: {medians['wikiextractor'] / medians[name]:.2f}")


def print_more_speed(
    args: argparse.Namespace, num_pages: int, num_bytes: int, scratch: Path
) -> None:
    """Prints one process, a dump several times as large, and the stages after this one."""
    one, _ = watched(ours(args.dump, scratch / "one", 1))
    print(f"ours with one process: {num_pages / one:,.0f} pages/s")
    big = repeated(args.dump, args.times, scratch / "big.xml.bz2")
    for name, command in (("ours", ours), ("ours, near-duplicates", ours_near)):
        took, peak = watched(command(big, scratch / "big", args.processes))
        print(
            f"{name}, on the same pages {args.times} times: {args.times * num_pages / took:,.0f} "
            f"pages/s, peak memory {peak / 1e6:.0f} MB"
        )
    for stage in ("tokenizer", "tokens"):
        runs = []
        for _ in range(args.runs):
            for folder in (scratch / "ours").glob(f"{stage}-*"):
                shutil.rmtree(folder)
            runs.append(watched(ours(args.dump, scratch / "ours", args.processes, stage)))
        rate = num_bytes / statistics.median(took for took, _ in runs) / 1e6
        print(
            f"{stage}: {rate:.1f} MB of text/s, peak memory {max(p for _, p in runs) / 1e6:.0f} MB"
        )


if __name__ == "__main__":
    main()

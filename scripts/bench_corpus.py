"""Our corpus stage against the wikiextractor command line, in turn, on one dump.

    python scripts/bench_corpus.py DUMP.xml.bz2 --runs 5

Both clean every page (no minimum length) with the same number of processes. Printed: pages a
second, the ratio, faults per megabyte of text (leftover markup and hanging punctuation, counted by
one pattern in both outputs), peak memory of the whole process tree, the share of the words of the
prose that is kept, ours again with the search for near-duplicates that wikiextractor lacks, and the
same for the tokenizer and tokens stages. The prose of a page is what
mwparserfromhell (pip install mwparserfromhell) finds in its paragraphs; it has no part in cleaning.
"""

import argparse
import bz2
import json
import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from importlib import metadata
from pathlib import Path

from gportuguese import Pipeline, corpus, load_config
from gportuguese.dump import read_pages
from gportuguese.dump.reader import stream_starts
from gportuguese.wikitext import FAULT, language_of, wikitext_to_text


def tree_memory_bytes(root: int) -> int:
    """Memory of a process and its descendants, what they share counted once (PSS)."""
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
    dump: Path, out: Path, processes: int, stage: str = "corpus", dedup: str = "off"
) -> list[str]:
    """The same through this project, every page kept whatever its length."""
    sets = [
        f"dump.source={dump}",
        f"runtime={{artifacts_dir: '{out}', num_workers: {processes}, device: cpu}}",
        f"corpus={{min_chars: 1, dedup: {dedup}, valid_per_mille: 10, test_per_mille: 10}}",
        "tokenizer.vocab_size=50257",
    ]
    words = [sys.executable, "-m", "gportuguese", stage]
    return words + [word for each in sets for word in ("--set", each)]


def ours_near(dump: Path, out: Path, processes: int) -> list[str]:
    """Ours, and near-duplicates kept on one side of the split."""
    return ours(dump, out, processes, dedup="near")


def their_texts(out: Path) -> list[str]:
    """The texts that wikiextractor wrote."""
    lines = (line for path in sorted(out.rglob("wiki_*")) for line in path.open(encoding="utf-8"))
    return [json.loads(line)["text"] for line in lines]


def our_texts(out: Path) -> list[str]:
    """The texts of our corpus stage."""
    pipeline = Pipeline(load_config(None, tuple(ours(Path(DUMP), out, PROCESSES)[5::2])))
    artifact = pipeline.open("corpus")
    return [t for split in corpus.SPLITS for texts in corpus.load(artifact, split) for t in texts]


def faults_per_mb(texts: list[str]) -> float:
    """Leftover markup and hanging punctuation per megabyte of UTF-8."""
    num_bytes = sum(len(text.encode()) for text in texts)
    return sum(len(FAULT.findall(text)) for text in texts) / num_bytes * 1e6


def words_kept(dump: Path, num_pages: int) -> tuple[float, float]:
    """Share of the words of prose that ours and wikiextractor's cleaner keep, on random pages."""
    import mwparserfromhell
    from wikiextractor.extract import Extractor

    pages = [page for page in read_pages(dump) if page.namespace == 0 and not page.is_redirect]
    language, total, kept = language_of("pt"), 0, [0, 0]
    for page in random.Random(0).sample(pages, min(num_pages, len(pages))):
        body = re.split(r"\n==+\s*(?:ver também|referências|notas|bibliografia|ligações externas)\b",
                        page.wikitext, flags=re.IGNORECASE)[0]  # fmt: skip
        body = re.sub(r"<ref[^<>]*/>|<(ref|math)\b[^<>]*>.*?</\1>", "", body, flags=re.DOTALL)
        code = mwparserfromhell.parse(body)
        for node in [node for node in code.nodes if getattr(node, "tag", None) == "table"]:
            code.remove(node)
        prose = Counter()
        for line in code.strip_code(normalize=True).split("\n"):
            # a line of sentences: not an image caption, a table cell or a list of links
            if len(line) > 80 and line.rstrip().endswith(".") and "|" not in line:
                prose.update(re.findall(r"[^\W\d_]{2,}", line))
        extractor = Extractor(page.id, "", "", page.title, [])
        texts = (
            wikitext_to_text(page.wikitext, page.title, language),
            "\n".join(extractor.clean_text(page.wikitext, expand_templates=False, html_safe=False)),
        )
        total += prose.total()
        for which, text in enumerate(texts):
            found = Counter(re.findall(r"[^\W\d_]{2,}", text))
            kept[which] += (prose & found).total()
    return kept[0] / total, kept[1] / total


def repeated(dump: Path, times: int, out: Path) -> Path:
    """A dump that holds the pages of a multistream dump several times."""
    data, starts = dump.read_bytes(), stream_starts(dump)
    head, body, foot = data[: starts[1]], data[starts[1] : starts[-1]], data[starts[-1] :]
    if b"<page>" in bz2.decompress(foot):
        sys.exit("the last stream of this dump holds pages")
    out.write_bytes(head + body * times + foot)
    return out


def main() -> None:
    """Prints the figures as a Markdown table."""
    global DUMP, PROCESSES
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dump", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--times", type=int, default=10, help="of the sample, for the memory")
    parser.add_argument("--kept-pages", type=int, default=2000)
    args = parser.parse_args()
    DUMP, PROCESSES = str(args.dump), args.processes
    num_pages = sum(1 for _ in read_pages(args.dump))
    scratch = Path(tempfile.mkdtemp())
    makers = {"wikiextractor": theirs, "ours": ours, "ours, near-duplicates": ours_near}
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    peaks: dict[str, list[int]] = {name: [] for name in makers}
    for run in range(args.runs + 1):  # the first is the warm-up
        for name, command in makers.items():
            shutil.rmtree(scratch / name, ignore_errors=True)
            took, peak = watched(command(args.dump, scratch / name, args.processes))
            if run:
                seconds[name].append(took)
                peaks[name].append(peak)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    texts = {
        "wikiextractor": their_texts(scratch / "wikiextractor"),
        "ours": our_texts(scratch / "ours"),
    }
    kept = dict(zip(("ours", "wikiextractor"), words_kept(args.dump, args.kept_pages), strict=True))
    print("| | seconds | pages/s | peak memory (MB) | faults per MB | words of prose kept |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in makers:
        quality = f"{faults_per_mb(texts[name]):.2f} | {kept[name]:.2%}" if name in texts else "|"
        print(
            f"| {name} | {medians[name]:.1f} | {num_pages / medians[name]:,.0f} | "
            f"{max(peaks[name]) / 1e6:.0f} | {quality} |"
        )
    print(f"\nratio of pages/s: {medians['wikiextractor'] / medians['ours']:.2f}")
    one, _ = watched(ours(args.dump, scratch / "one", 1))
    print(f"ours with one process: {num_pages / one:,.0f} pages/s")
    big = repeated(args.dump, args.times, scratch / "big.xml.bz2")
    for name, command in list(makers.items())[1:]:
        took, peak = watched(command(big, scratch / "big", args.processes))
        print(
            f"{name}, on the same pages {args.times} times: {args.times * num_pages / took:,.0f} "
            f"pages/s, peak memory {peak / 1e6:.0f} MB"
        )
    num_bytes = sum(len(text.encode()) for text in texts["ours"])
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
    print(
        f"\n{args.dump.name}: {num_pages:,} pages; {args.processes} processes, medians of {args.runs} runs "
        f"in turn after a warm-up, start of the program included; {os.cpu_count()} cores, "
        f"{platform.machine()}, Python {platform.python_version()}, wikiextractor "
        f"{metadata.version('wikiextractor')}, gportuguese {metadata.version('gportuguese')}"
    )
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()

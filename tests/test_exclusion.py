"""Documents that share text with evaluation texts are found; a slow twin compares all runs of words."""

import gzip
import json
import re
import time
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gportuguese import Pipeline, init_world, load_config
from gportuguese.config import CorpusConfig
from gportuguese.corpus import CorpusError, Document, Dropped
from gportuguese.corpus.cleaning import clean_page
from gportuguese.corpus.exclusion import REASON, Excluded, RunsOfTexts, Words
from gportuguese.corpus.exclusion_files import hash_excluded, write_excluded
from gportuguese.dump import read_pages
from gportuguese.wikitext import language_of
from tests.conftest import SHARED, dump_xml, page_xml, sentence
from tests.test_cli import gpt_pt, sets


def slow_words(text):
    """Character by character."""
    words = [""]
    for char in unicodedata.normalize("NFC", text).casefold():
        if unicodedata.category(char)[0] in "LNM":
            words[-1] += char
        elif words[-1]:
            words.append("")
    return [word for word in words if word]


def slow_shares(texts, document):
    """Compares every run of every text with every run of the document, as words."""
    words = slow_words(document)
    for text in map(slow_words, texts):
        num_words = min(len(text), 13)
        if num_words < 8:
            continue
        runs = [text[i : i + num_words] for i in range(len(text) - num_words + 1)]
        if any(words[i : i + num_words] in runs for i in range(len(words) - num_words + 1)):
            return True
    return False


def excluded(folder, texts):
    runs = RunsOfTexts()
    for text in texts:
        runs.add(Words.of(text).hashes_W)
    runs.save(folder)
    return Excluded.open(folder)


@given(st.text() | st.text("aÀé_-'9 \n\u0301\u093fß, .ﬁ"))
@example("")
@example("x" * 400 + " " + "x" * 401)
@example("ab cde " * 10_000 + "é" * 70_000)
@example("हिन्दी में “लिखा” e\u0301 É")
def test_words_are_those_of_the_slow_twin(text):
    words = Words.of(text)
    assert [words.run(n, 1) for n in range(len(words))] == slow_words(text)
    assert (words.hashes_W == Words.of(text.upper().lower()).hashes_W).all() or (
        slow_words(text) != slow_words(text.upper().lower())
    )
    numbers = dict(zip(slow_words(text), words.hashes_W.tolist(), strict=True))
    assert numbers == dict(zip(slow_words(text)[::-1], words.hashes_W.tolist()[::-1], strict=True))
    assert len(set(numbers.values())) == len(numbers)


few_words = st.lists(st.sampled_from(["a", "b", "c"]), max_size=40).map(" ".join)


@given(st.lists(few_words, max_size=4), few_words, few_words, st.booleans())
def test_a_shared_run_is_found_as_by_the_slow_twin(tmp_path_factory, texts, start, end, is_planted):
    document = f"{start}. {(texts or [''])[0].upper() if is_planted else ''} — {end}"
    found = excluded(tmp_path_factory.mktemp("runs"), texts)
    shared = found.shared_run(document) if found else None
    assert (shared is not None) == slow_shares(texts, document)
    if shared is not None:
        assert shared in " ".join(slow_words(document))
        assert any(shared in " ".join(slow_words(text)) for text in texts)


def test_thirteen_words_match_and_twelve_of_them_do_not(tmp_path):
    text = "Na véspera, três pastores — vindos da serra — contaram-nos tudo o que «viram» ali, à noite."
    words = slow_words(text)
    assert len(words) == 16
    found = excluded(tmp_path, [text])
    for first in range(4):
        run = words[first : first + 13]
        assert found.shared_run(f"Disse: {'_'.join(run).upper()}!") == " ".join(run)
        assert found.shared_run(f"Disse: {' '.join(run[1:])}!") is None
        assert found.shared_run(f"Disse: {' '.join([*run[:6], 'já', *run[6:]])}!") is None


def test_short_texts_match_as_a_whole_and_very_short_ones_never(tmp_path):
    eight = "um dois três quatro cinco seis sete oito"
    found = excluded(tmp_path, [eight, "o rio corre para o mar"])
    assert found.shared_run(f"zero, {eight}, nove") == eight
    assert found.shared_run(eight.removeprefix("um ")) is None
    assert found.shared_run("o rio corre para o mar") is None


def section(*files, **settings):
    return CorpusConfig(exclude=tuple(map(str, files)), **settings)


def test_every_format_excludes_the_same(tmp_path):
    texts = [sentence(3, 30), sentence(5, 9)]
    rows = [{"text": text, "label": 1} for text in texts]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    (tmp_path / "d.txt").write_text("\n".join(texts), encoding="utf-8")
    for name in ("a.jsonl", "b.jsonl.gz", "c.parquet", "d.txt"):
        folder = tmp_path / f"runs-{name}"
        folder.mkdir()
        write_excluded(section(tmp_path / name), folder)
        found = Excluded.open(folder)
        assert found.shared_run(f"x {texts[0]}") == " ".join(texts[0].split()[:13])
        assert found.shared_run(f"x {texts[1]} y") == texts[1]
        across = " ".join(f"{texts[0]} {texts[1]}".split()[-15:])  # over the end of a line
        assert (found.shared_run(across.rpartition(" ")[0]) is not None) == (name == "d.txt")


def test_files_that_exclude_nothing_are_named(tmp_path, caplog):
    (tmp_path / "a.jsonl").write_text('{"question": "x"}\n', encoding="utf-8")
    with pytest.raises(
        CorpusError, match=r"exclude: .*a\.jsonl has no text; its rows need a 'text'"
    ):
        write_excluded(section(tmp_path / "a.jsonl"), tmp_path)
    (tmp_path / "c.txt").write_text("Sim.\n", encoding="utf-8")
    write_excluded(section(tmp_path / "c.txt"), tmp_path)
    assert Excluded.open(tmp_path) is None
    with pytest.raises(CorpusError, match=r"exclude: no documents at .*/none\.txt"):
        hash_excluded(section(tmp_path / "none.txt"))
    (tmp_path / "b.txt").write_text(f"Sim.\n{sentence(2, 20)}\nNão.\n", encoding="utf-8")
    with caplog.at_level("INFO"):
        write_excluded(section(tmp_path / "b.txt"), tmp_path)
    assert "2 of 3 texts or lines have fewer than 8 words and exclude nothing" in caplog.text


def test_the_digest_follows_the_content_and_not_the_name(tmp_path):
    for name, text in (("a.txt", "um"), ("b.txt", "dois"), ("c.txt", "um")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    a, b, c = (tmp_path / name for name in ("a.txt", "b.txt", "c.txt"))
    assert hash_excluded(section(a, b)) == hash_excluded(section(b, c))
    assert hash_excluded(section(a)) != hash_excluded(section(b))
    config = load_config(None, (f"dump.source={tmp_path / 'd.xml'}",))
    (tmp_path / "d.xml").write_text(dump_xml(""), encoding="utf-8")
    other = load_config(None, (f"dump.source={tmp_path / 'd.xml'}", f"corpus.exclude=[{a}]"))
    again = load_config(None, (f"dump.source={tmp_path / 'd.xml'}", f"corpus.exclude=[{c}]"))
    Pipeline(config).build("dump")
    folders = [Pipeline(each).folder("corpus").name for each in (config, other, again)]
    assert folders[1] == folders[2] != folders[0]


def pages_with(planted):
    """Sixty pages; some hold a planted text in the middle."""
    texts = {number: sentence(number, 80) for number in range(1, 61)}
    for number, text in planted.items():
        texts[number] = f"{sentence(number, 40)}. {text} {sentence(number + 1, 40)}"
    return texts


@pytest.mark.parametrize("num_workers", [1, 3])
def test_pages_of_a_dump_are_dropped_counted_and_shown(tmp_path, num_workers):
    evaluation = "Quem vê caras, diz o povo da aldeia velha, não vê os corações que batem dentro."
    texts = pages_with({7: "'''QUEM''' vê [[cara|caras]] – diz o povo da aldeia velha: não vê os "
                        "corações que batem dentro!", 9: "Quem vê caras não vê corações."})  # fmt: skip
    pages = "".join(page_xml(n, f"P{n}", text) for n, text in texts.items())
    (tmp_path / "d.xml").write_text(dump_xml(pages), encoding="utf-8")
    (tmp_path / "e.txt").write_text(evaluation, encoding="utf-8")
    config = load_config(
        None,
        (
            f"dump.source={tmp_path / 'd.xml'}",
            f"runtime={{artifacts_dir: {tmp_path / 'artifacts'}, num_workers: {num_workers}}}",
            "corpus={min_chars: 100, valid_per_mille: 100, dedup: off}",
            f"corpus.exclude=[{tmp_path / 'e.txt'}]",
        ),
    )
    artifact = Pipeline(config).build("corpus", init_world(config.runtime))
    assert artifact.facts["dropped"] == {REASON: 1}
    assert sum(artifact.facts["documents"].values()) == 59
    (row,) = map(json.loads, (artifact.folder / "dropped.jsonl").read_text("utf-8").splitlines())
    assert row == {
        "id": "7",
        "title": "P7",
        "reason": REASON,
        "shared": " ".join(slow_words(evaluation)[:13]),
    }
    # without exclusion, everything else is as it was
    plain = load_config(None, (f"dump.source={tmp_path / 'd.xml'}", "corpus.exclude=[]"))
    assert plain.corpus.exclude == ()
    assert not list(artifact.folder.glob("**/excluded*"))


def test_the_command_drops_own_documents_and_names_a_missing_file(tmp_path, capsys):
    rows = [{"id": n, "text": sentence(n, 80)} for n in range(60)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "e.txt").write_text(" ".join(sentence(3, 80).split()[20:40]), encoding="utf-8")
    words = sets(
        (
            f"corpus.documents={tmp_path / 'own.jsonl'}",
            "dump.source=null",
            f"runtime.artifacts_dir={tmp_path / 'artifacts'}",
            "corpus.min_chars=100",
            "corpus.valid_per_mille=100",
        )
    )
    assert gpt_pt("corpus", *words, "--set", f"corpus.exclude=[{tmp_path / 'no.txt'}]") == 2
    assert re.search(r"corpus\.exclude: no documents at \S+no\.txt", capsys.readouterr().err)
    assert gpt_pt("corpus", *words, "--set", f"corpus.exclude=[{tmp_path / 'e.txt'}]") == 0
    (folder,) = (tmp_path / "artifacts").glob("corpus-*")
    facts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["facts"]
    wanted = sum(slow_shares([" ".join(sentence(3, 80).split()[20:40])], r["text"]) for r in rows)
    assert facts["dropped"][REASON] == wanted >= 1


@pytest.mark.data
def test_looking_for_shared_runs_is_fast_beside_cleaning(tmp_path):
    """In CPU seconds beside the bare parser; a regular expression for words took 1.7 times its time."""
    write_excluded(section(SHARED / "evalsets" / "pud" / "pt_pud.txt"), tmp_path)
    found, language = Excluded.open(tmp_path), language_of("pt")
    (dump,) = (SHARED / "ptwiki" / "20161101").glob("*multistream.xml.bz2")
    cleaning = looking = 0.0
    num_documents = 0
    found.shared_run("a")  # makes the table of letters
    for page in read_pages(dump):
        start = time.process_time()
        document = clean_page(page, CorpusConfig(), language)
        cleaned = time.process_time()
        if isinstance(document, Document):
            assert not isinstance(found.checked(document), Dropped)
            looking += time.process_time() - cleaned
            cleaning += cleaned - start
            num_documents += 1
        if num_documents == 300:
            break
    assert looking < 0.6 * cleaning

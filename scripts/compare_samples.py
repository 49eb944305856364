"""Continues the openings of held-out articles with several models, and counts how much they repeat.

    python scripts/compare_samples.py --config artifacts/train-... \
        --models base=SMOLLM2.gguf,trained=artifacts/train-...

A model is anything that `gpt-pt generate` takes, or a .gguf file. The openings are those of the first test
articles, which no stage learns from; the articles themselves are the last column of the table. Prints Markdown:
a table of repetition, then the texts, to be read by someone who speaks the language.
"""

import argparse
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from comparison import table

from gportuguese import Pipeline, load_model
from gportuguese.causal_lm import load_with_tokenizer
from gportuguese.cli.chosen import chosen_config
from gportuguese.corpus import load
from gportuguese.corpus.openings import opening_of
from gportuguese.generation import Sampling, Writer

KINDS = {
    "greedy": {"top_k": 1},
    "drawn": {"top_k": 0, "top_p": 0.95, "temperature": 0.7},
}


def repeated(text: str, n: int = 4) -> float:
    """Share of a text's word `n`-grams that it had before (seq-rep-n of Welleck et al. 2019).

    >>> repeated("a b c d e"), repeated("a b a b a b a b", n=2)
    (0.0, 0.7142857142857143)
    """
    words = text.split()
    grams = list(zip(*(words[start:] for start in range(n)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def prompts(args: argparse.Namespace) -> dict[str, str]:
    """The openings of test articles, each with the rest of its article."""
    corpus = Pipeline(chosen_config(args)).open("corpus")
    documents = next(load(corpus, "test"))
    openings = ((opening_of(document), document) for document in documents)
    pairs = ((opening, document[len(opening) :]) for opening, document in openings if opening)
    return dict(islice(pairs, args.prompts))


def writer_of(source: str) -> Writer:
    """The model of a folder, a Hub id or a .gguf file."""
    if source.endswith(".gguf"):
        model, bpe = load_with_tokenizer(source)
        return Writer(model.eval(), bpe, "cpu")
    return load_model(source)


def share(texts: Iterable[str]) -> str:
    """The mean share of repeated 4-grams, in per cent."""
    shares = [repeated(text) for text in texts]
    return f"{100 * sum(shares) / len(shares):.1f}"


def main() -> None:
    """Writes the texts and prints them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--models", required=True, help="name=source, separated by commas")
    parser.add_argument("--prompts", type=int, default=20, help="number of articles")
    parser.add_argument("--new-tokens", type=int, default=60, help="tokens of each text")
    args = parser.parse_args()
    rest = prompts(args)
    texts: dict[str, dict[str, list[str]]] = {}
    num_words = 0
    for model in args.models.split(","):
        name, _, source = model.partition("=")
        writer = writer_of(source)
        for kind, options in KINDS.items():
            sampling = Sampling(max_new_tokens=args.new_tokens, **options)
            written = [
                row.text.split() for row in writer.write_all(list(rest), sampling, window=True)
            ]
            texts.setdefault(kind, {})[name] = [" ".join(words) for words in written]
            num_words = max(num_words, *map(len, written))
    print(f"Repeated word 4-grams, %; mean of {len(rest)} texts of {args.new_tokens} tokens\n")
    articles = [" ".join(text.split()[:num_words]) for text in rest.values()]
    rows = [
        [kind, *(share(found) for found in by_model.values()), share(articles)]
        for kind, by_model in texts.items()
    ]
    print(table(["", *next(iter(texts.values())), "the articles"], rows))
    for number, prompt in enumerate(rest):
        print(f"\n## {prompt}\n")
        for kind, by_model in texts.items():
            for name, found in by_model.items():
                print(f"- {name}, {kind}: {found[number]}")


if __name__ == "__main__":
    main()

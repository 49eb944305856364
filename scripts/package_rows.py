"""Makes rows for a new vocabulary with the public packages `deepfocus` and `wechsel`, for compare_alignments.py.

    python -m venv peers && peers/bin/pip install deepfocus wechsel
    peers/bin/python scripts/package_rows.py deepfocus BASE ALIGNED --text CORPUS/train.parquet --out F.npy
    peers/bin/python scripts/package_rows.py wechsel BASE ALIGNED --text CORPUS/train.parquet \
        --source-text ENGLISH.jsonl.gz --dictionary EN-PT.tsv --out W.npy

It needs an environment of its own, because the packages pin other versions of our dependencies. Each package
runs unchanged; the texts, tokenizers and the dictionary are ours. `wechsel` would download fastText vectors of
Common Crawl. Instead it gets vectors that its own `train_embeddings` trains on the two texts. BASE is a model
folder with a tokenizer. ALIGNED is a folder of our align stage, with the new tokenizer.
"""

import argparse
import re
import tempfile
from importlib import metadata
from pathlib import Path

import numpy as np
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer


def as_jsonl(path: Path, out: Path) -> str:
    """Writes the `text` of each document to the .jsonl file `out`, the format of both packages."""
    kind = "parquet" if path.suffix == ".parquet" else "json"
    documents = load_dataset(kind, data_files=str(path), split="train").select_columns("text")
    documents.to_json(str(out))
    return str(out)


def focus_rows(source, target, source_VD, text: str, seed: int) -> np.ndarray:
    """`deepfocus` with its defaults."""
    from deepfocus import FOCUS

    rows = FOCUS(
        source_embeddings=source_VD,
        source_tokenizer=source,
        target_tokenizer=target,
        target_training_data_path=text,
        seed=seed,
    )
    return rows.numpy()


def wechsel_rows(source, target, source_VD, text: str, source_text: str, dictionary: Path):
    """`wechsel` with its defaults, and vectors trained on the two texts."""
    from wechsel import WECHSEL, train_embeddings

    def words(line: str) -> list[str]:
        return re.findall(r"\w+|[^\w\s]", line)

    near = WECHSEL(
        train_embeddings(source_text, tokenize_fn=words),
        train_embeddings(text, tokenize_fn=words),
        bilingual_dictionary=str(dictionary),
    )
    rows, _ = near.apply(source, target, source_VD.numpy())
    return rows


def main() -> None:
    """Writes the rows and prints their shape and the package's version."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", choices=("deepfocus", "wechsel"))
    parser.add_argument("base", type=Path)
    parser.add_argument("aligned", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--source-text", type=Path)
    parser.add_argument("--dictionary", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.package == "wechsel" and not (args.source_text and args.dictionary):
        parser.error("wechsel needs --source-text and --dictionary")
    source, target = (
        AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        for folder in (args.base, args.aligned)
    )
    model = AutoModelForCausalLM.from_pretrained(args.base, trust_remote_code=False)
    source_VD = model.get_input_embeddings().weight.detach().float()
    np.random.seed(args.seed)
    with tempfile.TemporaryDirectory() as scratch:
        text = as_jsonl(args.text, Path(scratch) / "target.jsonl")
        if args.package == "deepfocus":
            rows = focus_rows(source, target, source_VD, text, args.seed)
        else:
            source_text = as_jsonl(args.source_text, Path(scratch) / "source.jsonl")
            rows = wechsel_rows(source, target, source_VD, text, source_text, args.dictionary)
    np.save(args.out, np.asarray(rows, np.float32))
    print(f"{args.out}: {rows.shape} by {args.package} {metadata.version(args.package)}")


if __name__ == "__main__":
    main()

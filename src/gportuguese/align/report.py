"""What a person reads of an alignment: examples with their nearest source tokens, and a map."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gportuguese.align.rows import Vocabularies

_EXAMPLES, _NEAREST, _LABELS = 20, 3, 14


def examples_markdown(
    vocabularies: Vocabularies,
    kinds: np.ndarray,
    source_VD: np.ndarray,
    target_VD: np.ndarray,
    seed: int,
) -> str:
    """Twenty tokens of each kind, drawn by `seed`, and the source tokens whose rows are nearest."""
    chance = np.random.default_rng(seed)
    lines = []
    for kind in np.unique(kinds):
        ids = np.flatnonzero(kinds == kind)
        drawn = np.sort(chance.choice(ids, min(_EXAMPLES, len(ids)), replace=False))
        lines += [f"## {kind}: {len(ids):,} rows", "", "| token | nearest source tokens |"]
        lines += ["| --- | --- |"]
        cosines = _unit(target_VD[drawn]) @ _unit(source_VD[: vocabularies.shape[1]]).T
        for id, row in zip(drawn, cosines, strict=True):
            near = [
                f"{_shown(vocabularies.source_tokens[place])} {row[place]:.2f}"
                for place in np.argsort(-row)[:_NEAREST]
            ]
            lines.append(f"| {_shown(vocabularies.target_tokens[id])} | {', '.join(near)} |")
        lines.append("")
    return "\n".join(lines)


def draw_map(
    vocabularies: Vocabularies,
    kinds: np.ndarray,
    source_VD: np.ndarray,
    target_VD: np.ndarray,
    picture: Path,
) -> None:
    """The rows of both languages on the two axes in which source rows differ most, as a PNG.

    Words are written beside the points of the first tokens with a space and five letters or more:
    in a trained tokenizer the frequent ones.
    """
    from matplotlib.figure import Figure

    source_VD = source_VD[: vocabularies.shape[1]]
    centre = source_VD.mean(0)
    _, _, axes_DD = np.linalg.svd(np.cov(source_VD, rowvar=False))
    figure = Figure(figsize=(9, 6.5))
    axes = figure.subplots()
    place = (source_VD - centre) @ axes_DD[:2].T
    axes.scatter(place[:, 0], place[:, 1], s=3, color="0.8", label=f"source ({len(place):,})")
    new = (target_VD - centre) @ axes_DD[:2].T
    for kind in np.unique(kinds):
        some = new[kinds == kind]
        axes.scatter(some[:, 0], some[:, 1], s=4, alpha=0.6, label=f"{kind} ({len(some):,})")
    for points, tokens, color in (
        (place, vocabularies.source_tokens, "0.35"),
        (new, vocabularies.target_tokens, "black"),
    ):
        for id in [id for id, token in enumerate(tokens) if _is_word(token)][:_LABELS]:
            axes.annotate(tokens[id].decode().strip(), points[id], fontsize=8, color=color)
    axes.set(xlabel="first axis", ylabel="second axis", title="rows of the embedding matrix")
    axes.legend(markerscale=3, fontsize=8)
    figure.tight_layout()
    figure.savefig(picture, dpi=120)


def _is_word(token: bytes) -> bool:
    try:
        word = token.decode()
    except UnicodeDecodeError:
        return False
    return len(word) > 5 and word[0] == " " and word[1:].isalpha()


def _unit(matrix: np.ndarray) -> np.ndarray:
    return np.asarray(matrix / np.linalg.norm(matrix, axis=1, keepdims=True).clip(1e-9))


def _shown(token: bytes) -> str:
    return f"`{token.decode('utf-8', 'backslashreplace')!r}`".replace("|", "\\|")

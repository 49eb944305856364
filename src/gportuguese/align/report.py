"""The readable report of an alignment: examples with their nearest source tokens, and a map."""

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
    """Twenty random tokens of each kind with the source tokens whose rows are nearest."""
    rng = np.random.default_rng(seed)
    lines = []
    for kind in np.unique(kinds):
        ids = np.flatnonzero(kinds == kind)
        drawn = np.sort(rng.choice(ids, min(_EXAMPLES, len(ids)), replace=False))
        lines += [f"## {kind}: {len(ids):,} rows", "", "| token | nearest source tokens |"]
        lines += ["| --- | --- |"]
        cosines = _unit(target_VD[drawn]) @ _unit(source_VD[: vocabularies.shape[1]]).T
        for id, row in zip(drawn, cosines, strict=True):
            near = [
                f"{_shown(vocabularies.source_tokens[source_id])} {row[source_id]:.2f}"
                for source_id in np.argsort(-row)[:_NEAREST]
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
    """Plots the rows of both languages on the first two principal components of the source rows.

    Labels the first tokens that are a space and at least five letters. In a trained tokenizer those
    are frequent words.
    """
    from matplotlib.figure import Figure

    source_VD = source_VD[: vocabularies.shape[1]]
    centre = source_VD.mean(0)
    _, _, axes_DD = np.linalg.svd(np.cov(source_VD, rowvar=False))
    figure = Figure(figsize=(9, 6.5))
    axes = figure.subplots()
    source_points = (source_VD - centre) @ axes_DD[:2].T
    axes.scatter(
        source_points[:, 0],
        source_points[:, 1],
        s=3,
        color="0.8",
        label=f"source ({len(source_points):,})",
    )
    target_points = (target_VD - centre) @ axes_DD[:2].T
    for kind in np.unique(kinds):
        some = target_points[kinds == kind]
        axes.scatter(some[:, 0], some[:, 1], s=4, alpha=0.6, label=f"{kind} ({len(some):,})")
    for points, tokens, color in (
        (source_points, vocabularies.source_tokens, "0.35"),
        (target_points, vocabularies.target_tokens, "black"),
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

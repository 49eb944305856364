"""The readable report of an alignment: examples with their nearest source tokens, and a map."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gportuguese.align.rows import Vocabularies

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

_EXAMPLES, _NEAREST, _LABELS = 20, 3, 14
_CANDIDATES = 200  # words tried as labels, of each language


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
    title: str,
    picture: Path,
) -> None:
    """Plots the rows of both languages on the first two principal components of the source rows.

    Labels up to 14 frequent words of each language where they do not overprint: the first tokens that
    are a space and at least five letters, new rows before copied ones; in an extension only new ones.
    Rows of a kind that are all equal are one large star. The picture is 900 pixels wide and readable at 600.
    """
    from matplotlib.figure import Figure

    source_VD = source_VD[: vocabularies.shape[1]]
    centre = source_VD.mean(0)
    _, variances, axes_DD = np.linalg.svd(np.cov(source_VD, rowvar=False))
    figure = Figure(figsize=(7.5, 6.6), layout="constrained")
    axes = figure.subplots()
    source_points = (source_VD - centre) @ axes_DD[:2].T
    target_points = (target_VD - centre) @ axes_DD[:2].T
    axes.scatter(
        source_points[:, 0],
        source_points[:, 1],
        s=5,
        color="0.75",
        lw=0,
        label=f"base model ({len(source_points):,})",
    )
    by_size = sorted(np.unique(kinds), key=lambda kind: -(kinds == kind).sum())
    for number, kind in enumerate(by_size):
        some = target_points[kinds == kind]
        is_one = bool(np.ptp(some, axis=0).max() < 1e-6) and len(some) > 1
        shown = some[:1] if is_one else some
        axes.scatter(
            shown[:, 0],
            shown[:, 1],
            s=120 if is_one else 9,
            marker="*" if is_one else "o",
            alpha=1 if is_one else 0.6,
            lw=0,
            color=f"C{number}",
            zorder=3 if is_one else 2,
            label=f"{kind} ({len(some):,}{' rows, all equal' if is_one else ''})",
        )
    shares = 100 * variances[:2] / variances.sum()
    bold = "new tokens" if vocabularies.is_extension else "tokens of the new vocabulary"
    axes.set_title(f"{title}\nbold: {bold}; italic: of the base model", size=11)
    axes.set_xlabel(
        f"first principal component of the base model's rows ({shares[0]:.0f} % of variance)"
    )
    axes.set_ylabel(f"second principal component ({shares[1]:.0f} %)")
    figure.legend(loc="outside lower center", ncols=4, fontsize=9)
    figure.draw_without_rendering()  # fixes the layout, so that the sizes of labels are final
    taken: list[Bbox] = []
    is_copied, never = kinds == "copied", np.zeros(len(source_VD), bool)
    for points, tokens, style, is_last in (
        (target_points, vocabularies.target_tokens, {"weight": "bold"}, is_copied),
        (source_points, vocabularies.source_tokens, {"style": "italic"}, never),
    ):
        shown = ~is_last if vocabularies.is_extension else np.ones(len(tokens), bool)
        ids = islice((id for id in np.flatnonzero(shown) if _is_word(tokens[id])), _CANDIDATES)
        words = {tokens[id].decode().strip(): points[id] for id in sorted(ids, key=is_last.item)}
        _label(axes, words, style, taken)
    figure.savefig(picture, dpi=120)


def _label(axes: Axes, words: dict[str, Any], style: dict[str, Any], taken: list[Bbox]) -> None:
    """Writes the first words that fit beside their points without touching a box in `taken`."""
    from matplotlib.patheffects import withStroke

    halo = withStroke(linewidth=2.5, foreground="white")
    free, number = axes.get_window_extent(), 0
    for word, point in words.items():
        text = axes.annotate(
            word,
            point,
            xytext=(3, 3),
            textcoords="offset points",
            fontsize=9,
            path_effects=[halo],
            **style,
        )
        text.set_in_layout(False)
        box = text.get_window_extent().padded(4)
        is_inside = free.containsx(box.x1) and free.containsy(box.y1)
        if not is_inside or box.count_overlaps(taken):
            text.remove()
            continue
        taken.append(box)
        number += 1
        if number == _LABELS:
            break


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

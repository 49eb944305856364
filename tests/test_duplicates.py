"""Near-duplicates meet, others do not, and a cluster is never split."""

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gportuguese import Pipeline, corpus, init_world, load_config
from gportuguese.corpus.duplicates import NUM_BANDS, band_keys, clusters
from tests.conftest import dump_xml, page_xml, sentence


def meet(one, two):
    return bool(set(band_keys(one)) & set(band_keys(two)))


def stub(name, number):
    return (
        f"{name} é uma comuna francesa na região administrativa de Occitânia, no departamento de "
        f"Aude. Estende-se por uma área de {number} km², com {number * 7} habitantes. A comuna faz "
        "parte do cantão e do arrondissement do mesmo departamento, e o seu território é banhado "
        "por um pequeno rio que corre para o mar. A economia local vive da vinha e do turismo."
    )


def test_templated_stubs_meet_and_other_texts_do_not():
    assert len(band_keys(stub("Ajac", 8))) == NUM_BANDS
    assert meet(stub("Ajac", 8), stub("Alet", 38))
    assert not meet(stub("Ajac", 8), sentence(3, 80))
    assert band_keys("curto") == band_keys("curto")


def twin(keys):
    """Clusters by comparing all pairs until nothing changes."""
    first = list(range(len(keys)))
    changed = True
    while changed:
        changed = False
        for i in range(len(keys)):
            for j in range(len(keys)):
                if any(a == b for a, b in zip(keys[i], keys[j], strict=True)):
                    low = min(first[i], first[j])
                    if first[i] != low or first[j] != low:
                        first[i] = first[j] = low
                        changed = True
    return first


@given(st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=3), max_size=12))
def test_clusters_are_those_of_the_obvious_search(keys):
    array = np.array(keys, np.uint64).reshape(-1, 3)
    assert clusters(array).tolist() == twin(keys)


def test_a_cluster_stays_on_one_side_and_nothing_of_it_is_dropped(tmp_path):
    numbers = random.Random(0)
    pages = [page_xml(n, f"C{n}", stub(f"Vila{n}", numbers.randrange(9, 99))) for n in range(1, 40)]
    pages += [page_xml(100 + n, f"P{n}", sentence(n, 60)) for n in range(60)]
    (tmp_path / "d.xml").write_text(dump_xml("".join(pages)), encoding="utf-8")
    sides = {}
    for dedup in ("near", "exact"):
        section = "min_chars: 50, valid_per_mille: 300, test_per_mille: 300"
        config = load_config(
            None,
            (
                f"runtime.artifacts_dir={tmp_path / dedup}",
                "runtime.num_workers=1",
                f"dump.source={tmp_path / 'd.xml'}",
                f"corpus={{{section}, dedup: {dedup}}}",
            ),
        )
        artifact = Pipeline(config).build("corpus", init_world(config.runtime))
        sides[dedup] = {
            split
            for split in corpus.SPLITS
            for texts in corpus.load(artifact, split)
            for text in texts
            if "comuna" in text
        }
        if dedup == "near":
            assert artifact.facts["near_duplicates"]["largest"] == 39
    assert len(sides["near"]) == 1
    assert len(sides["exact"]) == 3

import dataclasses

import pytest
import torch

from gportuguese import Pipeline, init_world, load_config
from gportuguese import model as models
from gportuguese.callbacks.epoch_table import read_epochs


def run(overrides, *more):
    config = load_config(None, (*overrides, *more))
    return Pipeline(config).build("train", init_world(config.runtime))


def test_epoch_table_counts_over_phases_and_lists_every_file(tiny_overrides):
    artifact = run(tiny_overrides)
    rows = read_epochs(artifact.folder / "epochs.csv")
    assert [(row.epoch, row.phase) for row in rows] == [
        (0, "before"),
        (1, "embeddings"),
        (2, "all"),
        (3, "all"),
    ]
    assert rows[-1].loss < rows[0].loss - 0.5
    assert artifact.facts["trainable_parameters"]["all"] == sum(
        p.numel() for p in models.load(artifact.folder / "model").parameters()
    )
    found = {
        p.relative_to(artifact.folder).as_posix() for p in artifact.folder.rglob("*.safetensors")
    }
    assert found == {
        "model/model.safetensors",
        "phases/1-embeddings/model.safetensors",
        "phases/2-all/model.safetensors",
    }


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_follows_fp32(tiny_overrides, precision):
    plain = read_epochs(run(tiny_overrides).folder / "epochs.csv")
    mixed = read_epochs(run(tiny_overrides, f"train.precision={precision}").folder / "epochs.csv")
    assert mixed[-1].loss == pytest.approx(plain[-1].loss, rel=0.02)
    assert mixed[-1].loss != plain[-1].loss


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_cuda_follows_the_cpu(tiny_overrides, precision):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    no_dropout = (
        "align.base={layers: 3, width: 16, heads: 2, positions: 32, dropout: 0.0}",
        f"train.precision={precision}",
    )
    rows = [
        dataclasses.asdict(
            read_epochs(run(tiny_overrides, *no_dropout, *more).folder / "epochs.csv")[-1]
        )
        for more in ((), ("runtime.device=cuda", "name=cuda", "evaluate.sample_tokens=9"))
    ]
    assert rows[1]["loss"] == pytest.approx(rows[0]["loss"], rel=0.02)

"""The demonstration in small: what is transferred from English must help."""

from gportuguese import Pipeline, init_world, load_config
from gportuguese.epochs import read_epochs


def test_transfer_beats_random_weights_and_the_loss_falls_every_epoch(tmp_path):
    tables = {}
    for method in ("mean", "random"):
        config = load_config(
            None,
            (
                f"runtime.artifacts_dir={tmp_path}",
                "runtime.device=cpu",
                "train.global_batch_size=4",
                "runtime.micro_batch_size=4",
                "train.epoch_tokens=2048",
                "train.valid_tokens=1024",
                "train.tracker=none",
                f"align.method={method}",
            ),
        )
        pipeline = Pipeline(config)
        folder = pipeline.build("train", init_world(config.runtime)).folder
        tables[method] = read_epochs(folder / "epochs.csv")
        if method == "mean":
            facts = pipeline.open("align").facts
            assert set(facts["rows"]) == {"copied", "mean"}
            assert sum(facts["rows"].values()) == 4096
            assert facts["rows"]["copied"] > 800
    losses = [row.loss for row in tables["mean"]]
    assert losses == sorted(losses, reverse=True)
    for transferred, fresh in zip(tables["mean"], tables["random"], strict=True):
        assert transferred.bits_per_byte < fresh.bits_per_byte

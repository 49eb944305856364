import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from gportuguese import Pipeline, evaluation, init_world, load_config
from gportuguese.cli import stage
from gportuguese.epochs import epochs_markdown, read_epochs
from gportuguese.generation import Writer
from gportuguese.world import World

pytestmark = pytest.mark.usefixtures("built_stages")


def test_report_repeats_the_table_and_measures_both_sets(tiny_overrides):
    config = load_config(None, (*tiny_overrides, "train.valid_tokens=null", "evaluate.tokens=null"))
    pipeline = Pipeline(config)
    artifact = pipeline.build("evaluate", init_world(config.runtime))
    report = json.loads((artifact.folder / "report.json").read_text(encoding="utf-8"))
    rows = read_epochs(artifact.folder / "epochs.csv")
    # the loaded weights give the measures of the last epoch's validation
    assert report["measures"]["valid"]["loss"] == pytest.approx(rows[-1].loss, abs=1e-6)
    assert report["measures"]["valid"]["bits_per_byte"] == pytest.approx(
        rows[-1].bits_per_byte, abs=1e-6
    )
    assert report["measures"]["test"]["loss"] > 0
    # and the aligned model those before training
    assert report["before"]["valid"]["loss"] == pytest.approx(rows[0].loss, abs=1e-6)
    assert report["prompts"] == artifact.facts["prompts"] == ["o rio"]
    table = (artifact.folder / "epochs.md").read_text(encoding="utf-8").splitlines()
    assert table[0].startswith("| after ... epochs | phase | train loss | loss | accuracy (%)")
    assert len(table) == 2 + len(rows)
    assert table[-1].startswith(f"| 3 | all | {rows[-1].train_loss:.4f} | {rows[-1].loss:.4f} |")
    assert epochs_markdown(artifact).splitlines() == table
    assert (artifact.folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "**o rio**" in (artifact.folder / "samples.md").read_text(encoding="utf-8")


def test_samples_fit_a_model_of_few_positions(small_base, capsys):
    writer = Writer.load(small_base, "cpu")
    config = load_config(None, ("evaluate.sample_tokens=500",))
    prompt = "o rio corre para o mar " * 20
    text = evaluation._samples(config, [prompt], writer)
    assert text.count(f"**{prompt}**") == 3
    stage._show_samples([prompt], small_base, World("cpu", num_workers=1))
    assert capsys.readouterr().err.startswith("sample: o rio")


def test_intervals_are_in_the_report_and_follow_from_the_sums_of_documents(tiny_overrides):
    config = load_config(None, (*tiny_overrides, "evaluate.tokens=null"))
    pipeline = Pipeline(config)
    artifact = pipeline.build("evaluate", init_world(config.runtime))
    report = json.loads((artifact.folder / "report.json").read_text(encoding="utf-8"))
    table = pq.read_table(artifact.folder / "documents.parquet").to_pylist()
    counts = pipeline.open("corpus").facts["documents"]
    lines = (artifact.folder / "measures.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "| after training | validation | test |"
    for column, split in enumerate(("valid", "test")):
        rows = [row for row in table if row["split"] == split]
        measures, before = report["measures"][split], report["before"][split]
        change = report["changes"][split]
        assert measures["documents"] == len(rows) <= counts[split]
        assert max(row["document"] for row in rows) < counts[split]
        for name, wanted in (("nats", measures), ("nats_before", before)):
            nats = math.fsum(row[name] for row in rows)
            bits = nats / sum(row["bytes"] for row in rows) / math.log(2)
            assert bits == pytest.approx(wanted["bits_per_byte"])
            low, high = wanted["bits_per_byte_interval"]
            assert low < bits < high
        assert change["bits_per_byte"] == pytest.approx(
            measures["bits_per_byte"] - before["bits_per_byte"]
        )
        # paired: far narrower than two separate intervals would suggest
        low, high = change["bits_per_byte_interval"]
        assert low < change["bits_per_byte"] < high < 0
        assert high - low < np.diff(measures["bits_per_byte_interval"]) + np.diff(
            before["bits_per_byte_interval"]
        )
        cells = {line.split(" | ")[0]: line.strip("| ").split(" | ") for line in lines}
        assert cells["| change"][1 + column] == (
            f"{change['bits_per_byte']:+.4f} [{low:+.4f}, {high:+.4f}]"
        )

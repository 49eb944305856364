import json

import pytest

from gportuguese import Pipeline, init_world, load_config
from gportuguese.epochs import epochs_markdown, read_epochs

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
    assert report["prompts"] == artifact.facts["prompts"] == ["o rio"]
    table = (artifact.folder / "epochs.md").read_text(encoding="utf-8").splitlines()
    assert table[0].startswith("| after ... epochs | phase | train loss | loss | accuracy (%)")
    assert len(table) == 2 + len(rows)
    assert table[-1].startswith(f"| 3 | all | {rows[-1].train_loss:.4f} | {rows[-1].loss:.4f} |")
    assert epochs_markdown(artifact).splitlines() == table
    assert (artifact.folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "**o rio**" in (artifact.folder / "samples.md").read_text(encoding="utf-8")

"""Several processes started by torchrun train the same model as one process."""

import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from gportuguese import Pipeline, artifacts, causal_lm, load_config
from gportuguese.epochs import read_epochs
from gportuguese.stages import STAGES
from gportuguese.tokens import BlockLoader
from gportuguese.world import World, WorldError
from tests.invariants.test_equal_runs import NO_DROPOUT, build, elsewhere
from tests.test_cli import sets

pytestmark = pytest.mark.usefixtures("built_stages")


def torchrun(overrides, processes=2, **options):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += ["--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command += ["-m", "gportuguese", "train", *sets(overrides)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def trained(overrides):
    return Pipeline(load_config(None, overrides)).folder("train")


def assert_equal(folder, other):
    for one, two in zip(*(read_epochs(f / "epochs.csv") for f in (folder, other)), strict=True):
        assert one.loss == pytest.approx(two.loss, abs=1e-6)
        assert one.bits_per_byte == pytest.approx(two.bits_per_byte, abs=1e-6)
        assert one.accuracy == two.accuracy
        if one.epoch:
            assert one.train_loss == pytest.approx(two.train_loss, abs=1e-6)
    weights = [causal_lm.load(each / "model").state_dict() for each in (folder, other)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], atol=1e-5, rtol=0)


# test_extend.py has one such run for every day; two processes take seconds to start
@pytest.mark.slow
@pytest.mark.parametrize(("micro_batch_size", "tie"), [(2, "keep"), (4, "keep"), (2, "untie")])
def test_two_processes_equal_one_across_unfreezing(tiny_overrides, tmp_path, micro_batch_size, tie):
    settings = (NO_DROPOUT, "train.valid_tokens=448", f"align.tie={tie}")
    both = (*tiny_overrides, *settings, f"runtime.micro_batch_size={micro_batch_size}")
    process = torchrun(both)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert output.count("| after ... epochs |") == 1  # only one process prints
    alone = build(elsewhere(tiny_overrides, tmp_path / "alone"), *settings)
    assert alone.name == trained(both).name
    assert artifacts.open_artifact(trained(both)).facts["processes"] == 2
    assert_equal(trained(both), alone)


@pytest.mark.slow  # starts two processes three times
@pytest.mark.timeout(600)
def test_two_processes_stop_and_resume_together(tiny_overrides, tmp_path):
    both = (*tiny_overrides, "train.epoch_tokens=40960")
    process = torchrun(both)
    for line in process.stderr:
        if "epoch 2 (all)" in line:
            break
    time.sleep(0.5)  # into the last epoch
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "stopped by SIGTERM" in errors
    process = torchrun(both)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "resuming from" in errors
    straight = elsewhere(both, tmp_path / "straight")
    process = torchrun(straight)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    for name in ("epochs.csv", "model/model.safetensors"):
        assert (trained(both) / name).read_bytes() == (trained(straight) / name).read_bytes()


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", [None, 5])
def test_the_shares_of_all_ranks_add_up_to_every_batch_once(num_ranks, seed):
    ids = np.arange(641, dtype="<u2")
    settings = {"block_size": 10, "batch_size": 2, "seed": seed}
    multiple = 24 if seed is not None else 1

    def batches(rank, ranks):
        loader = BlockLoader(ids, **settings, multiple=multiple, rank=rank, num_ranks=ranks)
        found = list(loader)
        assert len(found) == len(loader)
        return [inputs_BT.tolist() for inputs_BT, _ in found]

    whole = batches(0, 1)
    shares = [batches(rank, num_ranks) for rank in range(num_ranks)]
    for number, batch in enumerate(whole):
        assert shares[number % num_ranks][number // num_ranks] == batch
    assert sum(map(len, shares)) == len(whole)


def test_the_main_process_decides_which_folders_are_used(tiny_overrides, monkeypatch):
    """On another host, the Hub's cache may hold another commit."""
    config, store = load_config(None, tiny_overrides), torch.distributed.HashStore()
    main, other = (World("cpu", 1, rank, num_ranks=2, store=store) for rank in (0, 1))
    found = Pipeline(config).build("align", main)
    another = replace(STAGES["corpus"], outside=lambda *_: {"documents": "me/news@another"})
    monkeypatch.setitem(STAGES, "corpus", another)
    assert Pipeline(config).folder("align") != found.folder
    follower = Pipeline(config)
    assert follower.build("align", other).folder == found.folder
    assert follower.folder("corpus").is_dir()


def test_after_a_failure_the_processes_can_try_again():
    store = torch.distributed.HashStore()
    main, other = (World("cpu", 1, rank, num_ranks=2, store=store) for rank in (0, 1))
    with pytest.raises(OSError, match="disk"), main.main_first("work"):
        raise OSError("disk")
    with pytest.raises(WorldError, match="process 0 failed at work"), other.main_first("work"):
        pass
    for number in (1, 2):
        assert main.from_main("work", lambda number=number: number) == number
        assert other.from_main("work", pytest.fail) == number


def test_an_uneven_share_of_the_global_batch_is_rejected_before_anything_is_built(
    tiny_overrides, tmp_path
):
    new = (f"runtime.artifacts_dir={tmp_path / 'new'}", "runtime.micro_batch_size=8")
    config = load_config(None, (*tiny_overrides, *new))
    store = torch.distributed.HashStore()  # the processes of `init_world` share a store by network
    for rank in (0, 1):
        world = World("cpu", 1, rank, num_ranks=2, store=store)
        with pytest.raises(
            WorldError, match="train.global_batch_size=8 does not divide among 2 processes"
        ):
            Pipeline(config).build("train", world)
    assert not list((tmp_path / "new").glob("*"))

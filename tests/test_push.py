"""Pushes exports with the real client to a local stand-in for the Hub, with and without faults."""

import json
import logging
import os
import random
import re
import subprocess
import sys
import traceback
from datetime import datetime, timezone
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, close_session, constants, snapshot_download
from huggingface_hub.utils import _http

from gportuguese import UserError, push
from gportuguese.artifacts import ArtifactError, building, publish
from gportuguese.push import PushError
from tests.hub_host import Blob, HubHost, Repository
from tests.test_cli import gpt_pt, sets

# huggingface_hub 2.4 uses a deprecated argument of httpx2
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

DIGEST = "0123456789ab"
TOKEN = "hf_VerySecretIndeed"
REPO = "anna/gpt2-pt"
FILES = {
    "README.md": b"---\nlicense: mit\n---\n# A model\n",
    "config.json": b'{"n_layer": 2}',
    "model.safetensors": random.Random(0).randbytes(300_000),
    "tokenizer/vocab.json": '{"coração": 0}'.encode(),
}


MANIFEST = {
    "digest": DIGEST,
    "name": "demo",
    "section": {"repo": None},
    "facts": {"repo": "user/demo"},
}


def export(folder, files):
    """Publishes a finished export with these files."""
    with building(folder / f"export-{DIGEST}", resumable=False) as partial:
        for name, content in files.items():
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_bytes(content)
        return publish(partial, folder / f"export-{DIGEST}", MANIFEST).folder


@pytest.fixture
def exported(tmp_path):
    return export(tmp_path, FILES)


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A Hub where Anna is logged in. The client's own waits are skipped."""
    host = HubHost({TOKEN: "anna"})
    with host.running() as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: None))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield host
        close_session()


@pytest.fixture
def pushed(host, exported):
    """A function that pushes the export and records its waits in `pushed.waits`."""

    def pushed(repo=REPO, **settings):
        return push.push(exported, repo, sleep=pushed.waits.append, **settings)

    pushed.waits = []
    return pushed


def hub_files(host, branch="main"):
    files = host.repositories[REPO].files(branch)
    del files[".gitattributes"]
    return files


def test_a_pushed_model_loads_from_the_hub_unchanged(host, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=16, n_head=2, n_positions=32, vocab_size=300)
    model = GPT2LMHeadModel(config).eval()
    model.save_pretrained(tmp_path / "model")
    saved = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    receipt = push.push(export(tmp_path, {**saved, "README.md": FILES["README.md"]}), REPO)

    loaded = AutoModelForCausalLM.from_pretrained(REPO, cache_dir=tmp_path / "cache").eval()
    ids_BT = torch.arange(16)[None]
    with torch.no_grad():
        assert torch.equal(loaded(ids_BT).logits, model(ids_BT).logits)

    snapshot = snapshot_download(REPO, revision=receipt.commit, local_dir=tmp_path / "snapshot")
    for name, content in saved.items():
        assert (tmp_path / "snapshot" / name).read_bytes() == content, snapshot


def test_the_hub_has_every_file_except_the_manifest_and_the_receipt_lists_them(
    host, pushed, exported, tmp_path
):
    receipt = pushed()
    assert hub_files(host) == FILES
    assert receipt.sent == tuple(sorted(FILES))
    repository = host.repositories[REPO]
    assert repository.titles() == ["initial commit", f"Push export-{DIGEST}"]
    assert repository.branches == {"main": receipt.commit}
    assert not repository.private

    path = push.write_receipt(exported, receipt)
    assert path == tmp_path / f"push-{DIGEST}-anna--gpt2-pt.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written["repo"] == REPO
    assert written["revision"] == "main"
    assert written["commit"] == receipt.commit
    assert written["url"] == f"{constants.ENDPOINT}/{REPO}/tree/{receipt.commit}"
    assert {name: facts["size"] for name, facts in written["files"].items()} == {
        name: len(content) for name, content in FILES.items()
    }
    assert datetime.fromisoformat(written["time"]) <= datetime.now(timezone.utc)
    push.plan(exported, REPO)


def test_each_repository_and_branch_gets_its_own_receipt(host, pushed, exported):
    places = [(REPO, None), ("anna/other", None), (REPO, "phase/1")]
    paths = [push.write_receipt(exported, pushed(repo, revision=branch)) for repo, branch in places]
    for (repo, branch), path in zip(places, paths, strict=True):
        written = json.loads(path.read_text(encoding="utf-8"))
        assert (written["repo"], written["revision"]) == (repo, branch or "main")


def test_the_card_on_the_hub_names_its_own_repository(host, tmp_path):
    card = b'---\nlicense: mit\n---\nfrom_pretrained("user/demo") or user/demo\n'
    folder = export(tmp_path, {**FILES, "README.md": card})
    for repo in (REPO, "anna/other"):
        push.push(folder, repo)
        found = host.repositories[repo].files()["README.md"]
        assert found == card.replace(b'("user/demo")', f'("{repo}")'.encode())
        assert push.push(folder, repo).sent == ()
    assert (folder / "README.md").read_bytes() == card


def test_a_card_that_names_its_repository_is_sent_unchanged(host, tmp_path, monkeypatch):
    card = b'---\nlicense: mit\n---\nfrom_pretrained("anna/best")\n'
    monkeypatch.setitem(MANIFEST, "section", {"repo": "anna/best"})
    monkeypatch.setitem(MANIFEST, "facts", {"repo": "anna/best"})
    push.push(export(tmp_path, {**FILES, "README.md": card}), REPO)
    assert hub_files(host)["README.md"] == card


def test_a_second_push_sends_nothing_and_makes_no_commit(host, pushed):
    first = pushed()
    host.requests.clear()
    second = pushed()
    assert (second.commit, second.url, second.files) == (first.commit, first.url, first.files)
    assert second.sent == ()
    assert set(host.routes_asked()) == {"create", "info", "paths"}


def test_only_different_files_are_sent_and_other_files_stay(host, pushed):
    repository = host.repositories[REPO] = Repository(private=False)
    theirs = {"notes.txt": Blob(b"mine", False), "model.gguf": Blob(b"\0" * 99, True)}
    same = {"model.safetensors": Blob(FILES["model.safetensors"], True)}
    longer = {"config.json": Blob(b'{"n_layer": 3}', False)}
    repository.commit("main", "by hand", {".gitattributes": Blob(b"", False), **theirs})
    repository.commit("main", "by hand again", {**same, **longer})
    receipt = pushed()
    assert receipt.sent == ("README.md", "config.json", "tokenizer/vocab.json")
    assert hub_files(host) == {**FILES, "notes.txt": b"mine", "model.gguf": b"\0" * 99}
    assert len(repository.commits) == 3
    assert "put" not in host.routes_asked()


@pytest.mark.parametrize(
    ("route", "faults"),
    [
        ("commit", ["drop"]),
        ("commit", ["drop after"]),
        ("commit", ["slow"]),
        ("commit", ["slow", "drop after"]),
        ("commit", [503, "drop", 500, 429, "drop after"]),
        ("commit", [("status after", 504)]),
        ("commit", [409, 412]),
        ("commit", ["html"]),
        ("put", [("cut", 100_000)]),
        ("put", [503, ("cut", 1), "drop", "drop after"]),
        ("put", [500] * 6),
        ("put", ["drop"] * 6),
        ("verify", [503, "drop after"]),
        ("batch", [503, "drop"]),
        ("preupload", [503, "drop after"]),
        ("validate", ["html", 503, "drop"]),
        ("create", [503, "drop after"]),
        ("info", [503, 429, "drop", "html"]),
        ("paths", [503, "drop", "html"]),
    ],
)
def test_faults_still_end_in_one_commit_with_every_file(host, pushed, route, faults):
    host.faults[route].extend(faults)
    receipt = pushed()
    assert not host.faults[route]
    assert hub_files(host) == FILES
    assert host.repositories[REPO].titles() == ["initial commit", f"Push export-{DIGEST}"]
    assert receipt.commit == host.repositories[REPO].branches["main"]
    assert receipt.sent == tuple(sorted(FILES))


def test_a_concurrent_commit_by_someone_else_is_kept(host, pushed, monkeypatch):
    pushed()
    repository = host.repositories[REPO]
    repository.commit("main", "by hand", {"config.json": Blob(b"{}", False)})
    real = push._missing

    def commit_after_comparing(*args):
        missing = real(*args)
        monkeypatch.setattr(push, "_missing", real)
        repository.commit("main", "notes", {"notes.txt": Blob(b"mine", False)})
        return missing

    monkeypatch.setattr(push, "_missing", commit_after_comparing)
    assert pushed().sent == ("config.json",)
    assert hub_files(host) == {**FILES, "notes.txt": b"mine"}
    assert repository.titles()[2:] == ["by hand", "notes", f"Push export-{DIGEST}"]


def test_a_hub_that_stops_responding_is_retried(host, pushed, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "gportuguese")
    close_session()
    monkeypatch.setattr(push, "_TIMEOUT_SECONDS", 0.3)
    host.faults["commit"].append(1.0)
    pushed()
    assert pushed.waits == [1]
    assert "ReadTimeout" in caplog.text
    assert hub_files(host) == FILES


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_different_file_of_the_same_size_is_sent(host, pushed, name):
    first = pushed()
    blob = host.repositories[REPO].tree("main")[name]
    other = Blob(blob.content[::-1], blob.is_lfs)
    host.repositories[REPO].commit("main", "by hand", {name: other})
    second = pushed()
    assert (second.files, second.sent) == (first.files, (name,))
    assert hub_files(host) == FILES


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 1),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "86400"}, 600),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"RateLimit": '"api";r=9;t=55'}, 1),
        ({"Retry-After": "soon"}, 1),
    ],
)
def test_it_waits_as_long_as_the_hub_asks_up_to_a_limit(host, pushed, headers, seconds):
    host.faults["commit"].append(429)
    host.answer_headers = headers
    pushed()
    assert pushed.waits == [seconds]


def test_waits_double_until_it_gives_up(host, pushed):
    host.faults["commit"].extend([503] * 6)
    with pytest.raises(PushError, match=r"responded with 503 \(fault 503\); run again later"):
        pushed()
    assert pushed.waits == [1, 2, 4, 8, 16]
    assert hub_files(host) == {}
    assert pushed().sent == tuple(sorted(FILES))
    assert host.routes_asked().count("put") == 1


@pytest.mark.parametrize(
    ("route", "status", "message"),
    [
        ("info", 401, "run `hf auth login`"),
        ("commit", 401, "run `hf auth login`"),
        ("create", 403, "this token has no write access there: create one .*/settings/tokens"),
        ("preupload", 403, "this token has no write access there"),
        ("commit", 403, "this token has no write access there"),
        ("put", 403, "this token has no write access there"),
        ("commit", 402, "see .*/settings/billing"),
        ("commit", 404, "check --repo and --revision"),
        ("commit", 409, "run again later"),
        ("commit", 412, "other people keep committing"),
        ("commit", 413, "fix that and run again"),
        ("commit", 429, "run again later"),
        ("commit", 418, "fix that and run again"),
    ],
)
def test_errors_of_the_hub_come_with_advice(host, pushed, route, status, message):
    host.faults[route].extend([status] * 99)
    with pytest.raises(
        PushError, match=f"cannot push to {REPO}: .* responded with {status}.*{message}"
    ):
        pushed()
    assert len(pushed.waits) == (5 if status in (409, 412, 429) else 0)


@pytest.mark.parametrize(
    ("repo", "token", "message"),
    [
        (
            "bruno/gpt2-pt",
            TOKEN,
            r"responded with 403 \(You don't have the rights to write under bruno/",
        ),
        (REPO, "hf_revoked", "responded with 401 .*run `hf auth login`"),
        (REPO, "hf_with\nnewline", "contains invalid characters"),
        (REPO, "hf_coração", "contains invalid characters"),
        ("gpt2-pt", TOKEN, "write it as user/name"),
        ("anna/gpt2 pt", TOKEN, "Repo id must use alphanumeric chars"),
    ],
)
def test_a_wrong_account_or_name_is_reported(host, pushed, repo, token, message):
    with pytest.raises(PushError, match=message) as caught:
        pushed(repo, token=token)
    if token != TOKEN:
        assert token not in "".join(traceback.format_exception(caught.value))
    assert host.repositories == {}


def test_without_a_login_the_error_says_how_to_log_in(host, pushed, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PushError, match="not logged in to the Hub; run `hf auth login`"):
        pushed()
    assert host.requests == []


def test_a_model_card_rejected_by_the_hub_is_reported(host, tmp_path):
    card = b"---\nlicense: nonsense\n---\n"
    with pytest.raises(PushError, match=r'responded with 400 \("license" must be one of'):
        push.push(export(tmp_path, {**FILES, "README.md": card}), REPO)
    assert hub_files(host) == {}


def test_an_unreachable_hub_is_retried_before_giving_up(exported, host, pushed):
    with HubHost({}).running() as address:
        pass
    with pytest.raises(PushError, match=f"no connection to {address}: ConnectError .*check the"):
        pushed(endpoint=address)
    assert pushed.waits == [1, 2, 4, 8, 16]


def test_the_error_names_offline_mode(host, pushed, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PushError, match="unset the `HF_HUB_OFFLINE`"):
        pushed()
    assert pushed.waits == []


def test_a_branch_is_created_and_main_stays_unchanged(host, pushed):
    receipt = pushed(revision="phase/1")
    assert receipt.revision == "phase/1"
    assert hub_files(host, "phase/1") == FILES
    assert hub_files(host) == {}
    assert pushed(revision="phase/1").sent == ()


def test_nothing_private_is_sent_to_a_public_repository(host, pushed):
    pushed(private=True)
    assert host.repositories[REPO].private
    assert pushed(private=True).sent == ()
    assert pushed().sent == ()
    host.repositories[REPO] = Repository(private=False)
    host.repositories[REPO].commit("main", "by hand", {".gitattributes": Blob(b"", False)})
    with pytest.raises(PushError, match="already exists and is public"):
        pushed(private=True)
    assert hub_files(host) == {}


def test_the_error_names_a_file_that_the_hub_dropped(host, pushed):
    pushed()
    repository = host.repositories[REPO]
    repository.ignored.add("config.json")
    repository.commit("main", "by hand", {"config.json": Blob(b"{}", False)})
    with pytest.raises(PushError, match=r"config.json is not in commit .*\.gitignore"):
        pushed()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda folder: (folder / "config.json").write_text("{}"), "config.json was changed"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda folder: (folder / ".DS_Store").write_text("x"), ".DS_Store does not belong there"),
        (lambda folder: (folder / "manifest.json").unlink(), "has no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "manifest.json is damaged"),
        (lambda folder: folder.rename(folder.with_name("model")), "is not an export folder"),
        (lambda folder: folder.rename(folder.with_name(f"train-{DIGEST}")), "is not an export"),
    ],
)
def test_a_changed_export_is_rejected(host, pushed, exported, edit, message):
    edit(exported)
    changed = exported if exported.exists() else next(exported.parent.iterdir())
    with pytest.raises(UserError, match=message) as caught:
        push.push(changed, REPO)
    assert isinstance(caught.value, PushError | ArtifactError)
    assert host.requests == []


def test_an_empty_export_is_rejected(tmp_path):
    with pytest.raises(PushError, match="has no files to push"):
        push.plan(export(tmp_path, {}), REPO)


def all_output(caplog, capfd):
    texts = [record.getMessage() + str(record.exc_info) for record in caplog.records]
    return "".join([*texts, *capfd.readouterr()])


@pytest.mark.parametrize(
    "route", ["info", "create", "validate", "preupload", "batch", "commit", "paths"]
)
def test_no_message_contains_the_token(host, pushed, caplog, capfd, route):
    host.faults[route].append("echo")
    with caplog.at_level(logging.DEBUG), pytest.raises(PushError, match=r"Bearer \*\*\*") as caught:
        pushed()
    text = "".join(traceback.format_exception(caught.value)) + all_output(caplog, capfd)
    assert TOKEN not in text + str(vars(caught.value))
    assert f"Bearer {TOKEN}" in [authorization for _, authorization in host.requests]


def test_no_log_or_receipt_contains_the_token(host, pushed, exported, caplog, capfd):
    host.faults["commit"].extend([503, "drop", "drop after"])
    with caplog.at_level(logging.DEBUG):
        receipt = pushed()
    written = push.write_receipt(exported, receipt).read_text(encoding="utf-8")
    said = all_output(caplog, capfd)
    assert TOKEN not in written + repr(receipt) + said
    assert "responded with 503 (fault 503); retrying in 1 s" in said
    assert dict(host.requests)["put"] == ""  # the storage server is not the Hub


def test_a_receipt_that_cannot_be_written_does_not_hide_the_push(pushed, exported, monkeypatch):
    def full(path, value):
        raise OSError(28, "No space left on device")

    receipt = pushed()
    monkeypatch.setattr(push.atomic, "write_json", full)
    with pytest.raises(
        PushError, match=f"{receipt.commit}, but cannot write the receipt .*No space"
    ):
        push.write_receipt(exported, receipt)


def test_the_stand_in_hub_recognizes_the_token(host):
    assert HfApi().whoami()["name"] == "anna"


@pytest.mark.usefixtures("built_stages")
def test_the_command_exports_and_pushes_a_run_that_loads_unchanged(
    host, tiny_overrides, tmp_path, capsys, monkeypatch
):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words = ["push", "--repo", REPO, *sets(tiny_overrides)]
    assert gpt_pt(*words, "--dry-run") == 2  # it exports, but does not train
    assert "run: gpt-pt train" in capsys.readouterr().err
    assert gpt_pt("train", *sets(tiny_overrides)) == 0
    assert gpt_pt(*words, "--dry-run") == 0
    assert "model.safetensors" in capsys.readouterr().out
    assert not host.repositories
    assert gpt_pt(*words) == 0
    out = capsys.readouterr().out
    (receipt,) = (tmp_path / "artifacts").glob("push-*.json")
    assert json.loads(receipt.read_text(encoding="utf-8"))["repo"] == REPO
    assert str(receipt) in out

    options = {"cache_dir": tmp_path / "cache"}
    loaded = AutoModelForCausalLM.from_pretrained(REPO, **options).eval()
    bpe = AutoTokenizer.from_pretrained(REPO, **options)
    (trained,) = (tmp_path / "artifacts").glob("train-*/model")
    wanted = AutoModelForCausalLM.from_pretrained(trained).eval()
    ids_BT = bpe("o rio corre para o mar", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert torch.equal(loaded(ids_BT).logits, wanted(ids_BT).logits)
    assert f'from_pretrained("{REPO}")' in hub_files(host)["README.md"].decode()
    assert len(list((tmp_path / "artifacts").glob("export-*"))) == 1  # nothing is exported twice

    assert gpt_pt(*words) == 0
    assert "sent 0 files" in capsys.readouterr().out
    for place in (tmp_path / "artifacts", trained, trained.parent):
        assert gpt_pt("push", str(place), "--repo", REPO) == 0
        assert "sent 0 files" in capsys.readouterr().out

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert gpt_pt("generate", REPO, "o rio", "--top-k", "1", "--max-new-tokens", "3") == 0
    from_hub = capsys.readouterr()
    assert re.search(r"model: .*/models--anna--gpt2-pt/snapshots/\w+", from_hub.err)
    assert gpt_pt("generate", str(trained), "o rio", "--top-k", "1", "--max-new-tokens", "3") == 0
    assert capsys.readouterr().out == from_hub.out
    assert gpt_pt("generate", "anna/nothing", "o rio") == 2
    assert "the Hub has no model 'anna/nothing', or you may not see it" in capsys.readouterr().err


def test_the_script_lists_the_files_and_sends_them(request, host, exported, tmp_path):
    script = request.config.rootpath / "scripts" / "push_to_hub.py"
    environment = {**os.environ, "HF_ENDPOINT": constants.ENDPOINT, "HF_HUB_DISABLE_XET": "1"}
    del environment["HF_HUB_OFFLINE"]

    def run(*words):
        return subprocess.run(
            [sys.executable, str(script), str(exported), "--repo", REPO, *words],
            env={**environment, "HF_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            check=False,
        )

    dry = run("--dry-run", "--revision", "next")
    assert dry.returncode == 0, dry.stderr
    assert dry.stdout.splitlines() == [
        f"to {REPO}, branch next, in one commit, unless the Hub already has them:",
        "             31  README.md",
        "             14  config.json",
        "        300,000  model.safetensors",
        "             16  tokenizer/vocab.json",
        "        300,061  bytes in 4 files",
    ]
    assert host.requests == []

    sent = run()
    assert sent.returncode == 0, sent.stderr
    commit = host.repositories[REPO].branches["main"]
    assert f"sent 4 files: {constants.ENDPOINT}/{REPO}/tree/{commit}" in sent.stdout
    assert hub_files(host) == FILES
    assert (tmp_path / f"push-{DIGEST}-anna--gpt2-pt.json").exists()
    assert TOKEN not in sent.stdout + sent.stderr

    (exported / "config.json").write_text("{}")
    refused = run()
    assert refused.returncode == 2
    assert "config.json was changed" in refused.stderr
    assert "Traceback" not in refused.stderr

"""Stage folders are complete or absent, and changes to them are detected."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gportuguese import UserError, artifacts, hashes
from gportuguese.artifacts import ArtifactError, building, open_artifact, publish

DIGEST = "0123456789ab"


def make(folder, **facts):
    with building(folder, resumable=False) as partial:
        (partial / "a.txt").write_text("a", encoding="utf-8")
        return publish(partial, folder, {"digest": DIGEST, "facts": facts})


def test_a_published_folder_opens_with_the_same_facts(tmp_path):
    folder = tmp_path / f"x-{DIGEST}"
    made = make(folder, count=3, share=0.1, nested={"a": [1, None]})
    opened = open_artifact(folder)
    assert opened.facts == made.facts == {"count": 3, "share": 0.1, "nested": {"a": [1, None]}}
    assert opened.digest == DIGEST
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda folder: (folder / "a.txt").write_text("b"), "a.txt was changed"),
        (lambda folder: (folder / "a.txt").unlink(), "a.txt is missing"),
        (lambda folder: (folder / "b.txt").write_text("b"), "b.txt does not belong there"),
        (lambda folder: (folder / "manifest.json").unlink(), "has no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "is damaged"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "is damaged"),
    ],
)
def test_the_error_names_the_changed_file(tmp_path, edit, message):
    folder = tmp_path / f"x-{DIGEST}"
    make(folder)
    edit(folder)
    with pytest.raises(ArtifactError, match=message):
        open_artifact(folder)


def test_a_changed_manifest_or_renamed_folder_is_detected(tmp_path):
    folder = tmp_path / f"x-{DIGEST}"
    make(folder, dtype="<u2")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["facts"]["dtype"] = "<u4"
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ArtifactError, match="manifest.json was changed"):
        open_artifact(folder)
    other = tmp_path / "y-0123456789ab"
    make(other)
    copied = other.rename(tmp_path / "y-ffffffffffff")
    with pytest.raises(ArtifactError, match="belongs to another folder"):
        open_artifact(copied)


def test_a_second_builder_is_rejected_during_and_after_the_first(tmp_path):
    folder = tmp_path / f"x-{DIGEST}"
    with building(folder, resumable=False) as partial:
        (partial / "a.txt").write_text("a", encoding="utf-8")
        with (
            pytest.raises(ArtifactError, match="another process is building"),
            building(folder, resumable=False),
        ):
            pass
        assert (partial / "a.txt").exists()
        publish(partial, folder, {"digest": DIGEST, "facts": {}})
    with (
        pytest.raises(ArtifactError, match="has just built"),
        building(folder, resumable=False),
    ):
        pass
    assert open_artifact(folder).digest == DIGEST


@pytest.mark.parametrize("error", [RuntimeError("PytorchStreamWriter failed"), OSError(28, "x")])
def test_a_full_disk_is_reported_for_errors_of_any_library(tmp_path, monkeypatch, error):
    free = artifacts.shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(artifacts.shutil, "disk_usage", lambda path: free)
    with (
        pytest.raises(ArtifactError, match="no space left on the disk"),
        building(tmp_path / f"x-{DIGEST}", resumable=False),
    ):
        raise error


def test_other_errors_pass_through(tmp_path):
    with (
        pytest.raises(RuntimeError, match="something else"),
        building(tmp_path / f"x-{DIGEST}", resumable=False),
    ):
        raise RuntimeError("something else")


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A file large enough for the hash cache, and a list that records every file hashed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hashes, "_SETTLED_NS", 0)
    made, real = [], hashes.hash_file
    monkeypatch.setattr(hashes, "hash_file", lambda path: made.append(path) or real(path))
    path = tmp_path / "large"
    path.write_bytes(bytes(2 << 20))
    return path, made


def test_a_file_is_hashed_again_only_if_it_changed(large):
    path, made = large
    first = hashes.remembered_hash(path)
    assert hashes.remembered_hash(path) == first
    assert len(made) == 1
    stat = path.stat()
    while path.stat().st_ctime_ns == stat.st_ctime_ns:  # the clock of file times ticks every few ms
        with path.open("r+b") as file:  # same size, and the old time is restored
            file.write(b"x")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second = hashes.remembered_hash(path)
    assert second != first
    other = path.with_name("other")
    other.write_bytes(bytes(2 << 20))
    other.replace(path)
    assert hashes.remembered_hash(path) == first
    assert len(made) == 3


def test_the_hash_of_a_file_changed_just_now_is_not_cached(large, monkeypatch):
    path, made = large
    monkeypatch.setattr(hashes, "_SETTLED_NS", 60 * 10**9)
    for _ in range(2):
        hashes.remembered_hash(path)
    assert len(made) == 2


@pytest.mark.parametrize("content", ["{", "[]", "null"])
def test_a_damaged_hash_cache_is_ignored(large, content):
    path, made = large
    first = hashes.remembered_hash(path)
    hashes._hashes_path().write_text(content, encoding="utf-8")
    assert hashes.remembered_hash(path) == first
    assert len(made) == 2


def test_without_a_cache_folder_files_are_hashed_every_time(large, monkeypatch):
    path, made = large
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))  # a file
    assert hashes.remembered_hash(path) == hashes.remembered_hash(path)
    assert len(made) == 2


def test_a_machine_without_git_publishes_and_names_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert artifacts._commit() == "unknown"


def test_an_installed_package_does_not_name_the_commit_of_another_repository(monkeypatch, tmp_path):
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(
        artifacts, "__file__", str(tmp_path / "venv" / "gportuguese" / "artifacts.py")
    )
    assert artifacts._commit() == "unknown"


def test_an_unreadable_file_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot read .*gone: No such file"):
        hashes.remembered_hash(tmp_path / "gone")


def test_processes_that_hash_together_all_remember(large):
    path, _ = large
    copies = [path.with_name(f"copy{number}") for number in range(4)]
    for copy in copies:
        copy.write_bytes(path.read_bytes())
    code = (
        "import sys; from pathlib import Path; from gportuguese import hashes; "
        "hashes._SETTLED_NS = -(10**18); hashes.remembered_hash(Path(sys.argv[1]))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(copy)]) for copy in copies]
    assert [process.wait() for process in processes] == [0] * len(copies)
    assert {hashes._identity(copy.stat())[0] for copy in copies} <= set(hashes._read_hashes())


def test_many_files_are_hashed_with_one_writing_of_the_cache(large, monkeypatch):
    path, made = large
    copies = [path, *(path.with_name(f"copy{number}") for number in range(3))]
    for copy in copies[1:]:
        copy.write_bytes(path.read_bytes())
    written, write = [], hashes.write_json
    monkeypatch.setattr(hashes, "write_json", lambda *what: written.append(write(*what)))
    first = hashes.hash_files((copy.name, copy) for copy in copies)
    assert hashes.hash_files((copy.name, copy) for copy in copies) == first
    assert (made, len(written)) == (copies, 1)
    monkeypatch.setattr(hashes, "_SAVE_SECONDS", 0)
    (path.parent / "cache" / "gportuguese" / "hashes.json").unlink()
    hashes.hash_files((copy.name, copy) for copy in copies)
    assert len(written) == 5


def test_the_cache_forgets_the_oldest_files(large, monkeypatch):
    path, made = large
    monkeypatch.setattr(hashes, "_CACHED_FILES", 2)
    copies = [path, *(path.with_name(f"copy{number}") for number in range(2))]
    for copy in copies[1:]:
        copy.write_bytes(path.read_bytes())
    for copy in copies:
        hashes.remembered_hash(copy)
    assert len(hashes._read_hashes()) == 2
    made.clear()
    for copy in reversed(copies):
        hashes.remembered_hash(copy)
    assert made == [path]


def test_published_files_can_be_read_by_whom_the_umask_allows(tmp_path):
    mask = os.umask(0o022)
    try:
        with building(tmp_path / f"x-{DIGEST}", resumable=False) as partial:
            (partial / "weights").write_bytes(b"1")
            (partial / "weights").chmod(0o600)  # as safetensors leaves them
            folder = publish(partial, tmp_path / f"x-{DIGEST}", {"digest": DIGEST}).folder
    finally:
        os.umask(mask)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def test_a_folder_is_synced_before_its_rename_and_its_parent_after_it(tmp_path, monkeypatch):
    """What a loss of power would test."""
    events = []

    def rename(source, target, move=Path.rename):
        events.append("rename")
        return move(source, target)

    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(os, "fsync", lambda handle: events.append(os.fstat(handle).st_ino))
    folder = tmp_path / f"x-{DIGEST}"
    make(folder)
    renamed = events.index("rename")
    synced = {path.stat().st_ino for path in (folder, *folder.iterdir())}
    assert len(synced) == 3
    assert synced <= set(events[:renamed])
    assert events[renamed + 1 :] == [tmp_path.stat().st_ino]


@pytest.mark.parametrize("where", ["write_json", "rename_whole", "rmtree"])
def test_a_run_stopped_while_it_publishes_loses_neither_checkpoints_nor_the_stage(
    tmp_path, monkeypatch, where
):
    folder = tmp_path / f"x-{DIGEST}"
    partial = artifacts.partial_of(folder)

    def publish_it():
        with building(folder, resumable=True):
            (partial / "scratch").mkdir(exist_ok=True)
            (partial / "scratch" / "checkpoint").write_text("c", encoding="utf-8")
            (partial / "a.txt").write_text("a", encoding="utf-8")
            publish(partial, folder, {"digest": DIGEST, "facts": {}})

    def stop(*_, **__):
        raise KeyboardInterrupt

    place = artifacts.shutil if where == "rmtree" else artifacts
    with monkeypatch.context() as patch:
        patch.setattr(place, where, stop)
        with pytest.raises(KeyboardInterrupt):
            publish_it()
    if where != "rmtree":
        assert (partial / "scratch" / "checkpoint").exists()
        (partial / "manifest.json.tmp").write_text("{", encoding="utf-8")  # left by a full disk
        publish_it()
    assert set(open_artifact(folder).manifest["files"]) == {"a.txt"}
    assert not (folder / "scratch").exists()


def test_a_large_file_of_a_stage_is_hashed_once_unless_it_changes(large, tmp_path):
    path, made = large
    folder = tmp_path / f"x-{DIGEST}"
    with building(folder, resumable=False) as partial:
        path.rename(partial / "large")
        publish(partial, folder, {"digest": DIGEST})
    for _ in range(2):
        open_artifact(folder)
    assert [each.name for each in made] == ["large"]
    changed = (folder / "large").stat().st_mtime_ns
    while (folder / "large").stat().st_mtime_ns == changed:
        (folder / "large").write_bytes(b"x" + (folder / "large").read_bytes()[1:])
    with pytest.raises(ArtifactError, match="large was changed"):
        open_artifact(folder)


def test_a_hash_that_a_stage_already_knows_is_not_computed_again(large, tmp_path):
    path, made = large
    folder = tmp_path / f"x-{DIGEST}"
    with building(folder, resumable=False) as partial:
        path.rename(partial / "large")
        hashes.remember(((partial / "large").stat(), "known"))
        assert publish(partial, folder, {"digest": DIGEST}).manifest["files"]["large"] == {
            "size": 2 << 20,
            "sha256": "known",
        }
    open_artifact(folder)
    assert made == []

"""The script that packs files for a machine without a network, with a pip that fetches nothing."""

import os
import subprocess

import pytest

PIP = """#!/bin/sh
while [ "$1" != --dest ]; do shift; done
echo wheel > "$2/some.whl"
"""


@pytest.fixture
def pack(request, tmp_path):
    """Runs the script in an empty folder, with a stand-in for `python3 -m pip`."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text(PIP, encoding="utf-8")
    (tmp_path / "bin" / "python3").chmod(0o755)
    script = request.config.rootpath / "scripts" / "pack_offline.sh"
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}

    def run(*words):
        words = ["bash", str(script), "--out", "out", *words]
        return subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return run


def test_a_folder_with_other_files_is_not_removed(pack, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for _ in range(2):  # an empty folder is filled, and a filled one is replaced
        done = pack()
        assert done.returncode == 0, done.stderr
        assert (out / "1" / "some.whl").is_file()
    (out / ".made-by-pack-offline").unlink()
    done = pack()
    assert (done.returncode, "out holds other files" in done.stderr) == (2, True)
    assert (out / "1" / "some.whl").is_file()


def test_parts_are_joined_only_if_there_are_some(pack, tmp_path):
    assert "part01" not in pack().stdout
    (tmp_path / "base.gguf").write_text("weights", encoding="utf-8")
    done = pack("--base", "base.gguf")
    (join,) = [line.strip() for line in done.stdout.splitlines() if "part01" in line]
    there = tmp_path / "there"
    subprocess.run(["cp", "-r", tmp_path / "out" / "1", there], check=True)
    subprocess.run(["bash", "-c", join.replace("/tmp/offline", str(there))], check=True)
    assert (there / "base.gguf").read_text(encoding="utf-8") == "weights"

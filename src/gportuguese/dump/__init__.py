"""The dump stage: downloads or finds a Wikipedia dump and verifies it."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gportuguese import artifacts, atomic, hashes
from gportuguese.artifacts import Artifact
from gportuguese.config import Config, DumpConfig, did_you_mean, is_url, resolve_path
from gportuguese.dump.reader import DumpError, RawPage, read_header, read_pages
from gportuguese.world import World

if TYPE_CHECKING:
    from gportuguese.dump.fetch import Host, RemoteFile

log = logging.getLogger("gportuguese")

__all__ = [
    "DumpError",
    "RawPage",
    "build",
    "is_remote",
    "load",
    "local_path",
    "read_header",
    "read_pages",
]


def is_remote(section: DumpConfig) -> bool:
    """Whether the dump has to be downloaded."""
    return section.source is None or is_url(section.source)


def build(config: Config, inputs: dict[str, Artifact], out: Path, world: World) -> dict[str, Any]:
    """Writes `receipt.json`; downloads a remote dump and its index to `out`.

    The receipt has source, size and hashes, and the date of a dump that was looked up on the host.
    """
    section = config.dump
    receipt: dict[str, Any] = {}
    if is_remote(section):
        receipt = _fetch(section, out)
        path = out / str(receipt["path"])
    else:
        path = local_path(section)
        receipt = {"source": str(section.source), "path": str(path.resolve())}
    if not path.stat().st_size:
        raise DumpError(f"{path} is empty")
    receipt["language"] = read_header(path).language  # raises if the file is no dump
    receipt["size"] = path.stat().st_size
    if not is_remote(section):
        receipt["sha256"] = hashes.remembered_hash(path)
    atomic.write_json(out / "receipt.json", receipt)
    return receipt


def load(artifact: Artifact, section: DumpConfig) -> Path:
    """The dump file of a finished dump stage: the download, or the local file."""
    if is_remote(section):
        return artifact.folder / str(artifact.facts["path"])
    return local_path(section)


def local_path(section: DumpConfig) -> Path:
    """The local dump file of a section; raises `DumpError` if it is missing."""
    path = resolve_path(str(section.source))
    if not path.is_file():
        raise DumpError(
            f"no dump at {path}{did_you_mean(path)}; set dump.source to a pages-articles .xml or .xml.bz2"
        )
    return path


def _fetch(section: DumpConfig, out: Path) -> dict[str, Any]:
    from gportuguese.dump.fetch import Host, RemoteFile

    if section.source is not None and section.source.endswith("/"):
        raise DumpError(f"dump.source={section.source} is a folder; give the address of a file")
    with Host(section.mirror) as host:
        if section.source is not None:
            date, files = None, [RemoteFile(section.source)]
        else:
            date, files = _find_run(host, section, out)
        fetched = [host.fetch(file, out / file.name) for file in files]
    for file, each in zip(files, fetched, strict=True):
        # so that `publish` does not read it again
        hashes.remember(((out / file.name).stat(), each["sha256"]))
    return {
        "source": files[0].url,
        "path": files[0].name,
        "date": date,
        "fetched": fetched,
        "sha256": fetched[0]["sha256"],
    }


def _find_run(host: Host, section: DumpConfig, out: Path) -> tuple[str, list[RemoteFile]]:
    """The run of an interrupted download, if the host still has it; a newer `latest` does not replace it."""
    from gportuguese.dump.fetch import NoRunError

    scratch = out / artifacts.SCRATCH
    scratch.mkdir(exist_ok=True)
    run_file = scratch / "run.json"
    if run_file.exists():
        date = str(json.loads(run_file.read_text(encoding="utf-8"))["date"])
        try:
            return host.find_run(replace(section, date=date))
        except NoRunError as error:
            log.info("the host no longer has run %s (%s); starting again", date, error)
            for path in out.iterdir():
                if path != scratch:
                    path.unlink()
    date, files = host.find_run(section)
    atomic.write_json(run_file, {"date": date})
    return date, files

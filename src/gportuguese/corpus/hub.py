"""Data sets on the Hub: the commit they are pinned to, their files, and how these are read.

`datasets` finds the files of a subset and split, as its `load_dataset` does; no code of a data set is
run. The files are then read by our own readers, piece by piece, and never stored.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, Any, NoReturn

from gportuguese.config import SourceConfig
from gportuguese.corpus.files import FORMATS, File, is_document
from gportuguese.corpus.pool import CorpusError

_BUFFER_BYTES = 8 << 20  # per request, for formats read from start to end
_NAMES = 8  # subsets shown


def commit_of(source: SourceConfig, download: bool) -> str | None:
    """The commit of a data set; None if it is not known yet.

    Like base models, a data set stays at the commit in huggingface_hub's cache. Without one, with
    `download`, it is asked for. Raises `CorpusError` if there is none.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionResolutionError

    def found(local_files_only: bool) -> str:
        revision = HfApi().resolve_revision(
            source.documents,
            repo_type="dataset",
            revision=source.revision,
            local_files_only=local_files_only,
        )
        return str(revision.resolved)

    with _in_words(source):
        try:
            return found(local_files_only=True)
        except RevisionResolutionError:
            if not download:
                return None
        return found(local_files_only=False)


def hub_files(source: SourceConfig, commit: str) -> list[File]:
    """The files of a split at a commit; raises `CorpusError` if there are none that can be read."""
    from huggingface_hub import HfApi

    with _in_words(source):
        paths = _paths(source, commit)
        sizes = {
            entry.path: getattr(entry, "size", None)
            for folder in dict.fromkeys(str(PurePosixPath(path).parent) for path in paths)
            for entry in HfApi().list_repo_tree(
                source.documents,
                None if folder == "." else folder,
                repo_type="dataset",
                revision=commit,
            )
        }
    return [_file(source, commit, path, sizes.get(path)) for path in paths]


def _paths(source: SourceConfig, commit: str) -> list[str]:
    import datasets

    repo = source.documents
    try:
        builder = datasets.load_dataset_builder(repo, source.subset, revision=commit)
    except ValueError as error:
        names = datasets.get_dataset_config_names(repo, revision=commit)
        if source.subset in names or (source.subset is None and len(names) < 2):
            raise
        _no_subset(source, names, error)
    splits = {str(split): files for split, files in (builder.config.data_files or {}).items()}
    if source.split not in splits:
        raise CorpusError(
            f"{repo} has no split {source.split!r}; there are {', '.join(sorted(splits))}"
        )
    inside = f"@{commit}/"
    paths = [str(file).partition(inside)[2] for file in splits[source.split]]
    if others := [path for path in paths if not is_document(path)]:
        raise CorpusError(f"{repo} holds {others[0]}, which cannot be read; formats are {FORMATS}")
    return paths


def _no_subset(source: SourceConfig, names: list[str], error: Exception) -> NoReturn:
    close = difflib.get_close_matches(source.subset or "", names, n=_NAMES)
    shown = close or names[:_NAMES]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    problem = f"no subset {source.subset!r}" if source.subset else "several subsets"
    raise CorpusError(
        f"{source.documents} has {problem}; set subset to {', '.join(shown)}{more}"
    ) from error


def _file(source: SourceConfig, commit: str, path: str, size: int | None) -> File:
    place = f"{source.documents}@{commit[:7]}/{path}"

    def opened() -> IO[bytes]:
        from huggingface_hub import HfFileSystem

        with _in_words(source):
            name = f"datasets/{source.documents}@{commit}/{path}"
            raw = _HubStream(HfFileSystem().open(name, "rb", cache_type="none"), source)
        # pyarrow asks for exactly the columns that it needs
        if PurePosixPath(path).suffix == ".parquet":
            return raw  # type: ignore[return-value]
        return io.BufferedReader(raw, _BUFFER_BYTES)

    return File(path, place, size, opened)


class _HubStream(io.RawIOBase):
    """A file on the Hub. Every read is a request for that range, tried again by huggingface_hub."""

    def __init__(self, file: Any, source: SourceConfig) -> None:
        super().__init__()
        self.file, self.source = file, source

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self.file.seek(offset, whence))

    def tell(self) -> int:
        return int(self.file.tell())

    def readinto(self, buffer: Any) -> int:
        with _in_words(self.source):
            data = self.file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def _in_words(source: SourceConfig) -> Iterator[None]:
    """Turns what the Hub's clients raise into a `CorpusError` with a remedy."""
    repo = source.documents
    try:
        yield
    except CorpusError:
        raise
    except Exception as error:  # the clients raise many kinds, some of them not exported
        raise CorpusError(_sentence(repo, source.revision, error)) from error


def _sentence(repo: str, revision: str | None, error: Exception) -> str:
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError
    from huggingface_hub import errors

    causes = list(_causes(error))

    def is_a(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    statuses = [
        cause.response.status_code for cause in causes if isinstance(cause, errors.HfHubHTTPError)
    ]
    if is_a(errors.HFValidationError):
        return f"{repo!r} is neither a path nor a Hub id"
    # `datasets` tells a gated data set from a missing one only in words
    if is_a(errors.GatedRepoError) or any("is a gated" in str(cause) for cause in causes):
        return (
            f"the data set {repo!r} is gated; accept its conditions at "
            f"https://huggingface.co/datasets/{repo} and run `hf auth login`"
        )
    if is_a(errors.RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}; check the revision"
    if is_a(errors.RepositoryNotFoundError, DatasetNotFoundError) or 401 in statuses:
        return (
            f"there is no file or folder {repo!r}, and the Hub has no such data set, or you may not "
            "see it; check the name, or run `hf auth login`"
        )
    if 429 in statuses:
        return (
            f"cannot read {repo}: the Hub answers 429 (too many requests); run again later, or log "
            "in with `hf auth login` for a higher limit"
        )
    if statuses:
        return f"cannot read {repo}: the Hub answers {statuses[0]}; run again to go on"
    if is_a(DataFilesNotFoundError):
        return f"{repo} on the Hub holds no files that can be read ({FORMATS})"
    if is_a(ConnectionError, TimeoutError, errors.RevisionResolutionError) or _is_network(causes):
        return (
            f"there is no file or folder {repo!r}, and the Hub is unreachable; check the network, unset "
            "HF_HUB_OFFLINE and run again to go on, or correct the path"
        )
    return f"cannot read {repo} from the Hub: {error}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_network(causes: list[BaseException]) -> bool:
    """Whether the client's HTTP library failed; which one that is changes between its versions."""
    return any(type(cause).__module__.partition(".")[0].startswith("httpx") for cause in causes)

"""Upload of files to a repository of the hub, in one commit."""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tunewright import console
from tunewright.errors import HubError
from tunewright.hub.bundle import BundleFile
from tunewright.models.hub_errors import HubMessage, clean_message, endpoint, explain, read_token
from tunewright.storage import file_digest

if TYPE_CHECKING:
    from huggingface_hub import HfApi

RepoType = Literal["model", "dataset"]
_TIMEOUT_S = 300.0  # for one read or write on a connection; the library has no limit
_TRIES = 4
_LONGEST_PAUSE_S = 60.0
_RETRIED_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Upload:
    """The repository's address, the files sent, the files that it already had, and the other files that it holds."""

    url: str
    num_sent: int
    num_present: int
    others: tuple[str, ...]


def upload(repo: str, kind: RepoType, files: Sequence[BundleFile], public: bool, message: str) -> Upload:
    """Create the repository if there is none, and send the files that it lacks, in one commit.

    Large files are uploaded before the commit, to the hub's storage by digest. So the same call after a break sends
    only what is missing, and the repository does not change before the commit.

    Raises:
        HubError: no token, no permission, no connection, a public repository where a private one is expected, a file
            that changed during the upload; each says what to do.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint(), token=read_token())
    with _library_settings(), _hub_errors(repo):
        _retried(api.whoami)
        url = _retried(lambda: api.create_repo(repo, repo_type=kind, private=not public, exist_ok=True))
        _check_visibility(api, repo, kind, public)
        before = _remote(api, repo, kind)
        missing = [file for file in files if not _same(file, before.get(file.name))]
        if missing:
            _commit(api, repo, kind, missing, message)
            _check_arrived(repo, missing, _remote(api, repo, kind))
        others = sorted(set(before) - {file.name for file in files} - {".gitattributes"})
        return Upload(str(url), len(missing), len(files) - len(missing), tuple(others))


def _check_visibility(api: HfApi, repo: str, kind: RepoType, public: bool) -> None:
    private = _retried(lambda: api.repo_info(repo, repo_type=kind)).private
    page = f"datasets/{repo}" if kind == "dataset" else repo
    if not private and not public:
        raise HubError(
            f"{repo} is public, and --public was not given",
            "the repository existed before this push, and everybody can read it",
            f"publish with --public; or make it private first: {endpoint()}/{page}/settings",
        )
    if private and public:
        console.warning(f"{repo} exists and is private; it stays private until its settings are changed on the hub")


def _remote(api: HfApi, repo: str, kind: RepoType) -> dict[str, Any]:
    """Return the repository's files by name."""
    tree = _retried(lambda: list(api.list_repo_tree(repo, repo_type=kind, recursive=True)))
    return {entry.path: entry for entry in tree if hasattr(entry, "blob_id")}


def _same(file: BundleFile, remote: Any) -> bool:
    """Return whether the hub has this content: by SHA-256 for a large file, by git's digest for a small one."""
    if remote is None or remote.size != file.size:
        return False
    if remote.lfs is not None:
        return bool(remote.lfs.sha256 == file.sha256)
    return bool(remote.blob_id == _git_digest(_content(file)))


def _content(file: BundleFile) -> bytes:
    return file.content if file.content is not None else file.path.read_bytes() if file.path else b""


def _git_digest(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()


def _commit(api: HfApi, repo: str, kind: RepoType, files: Sequence[BundleFile], message: str) -> None:
    from huggingface_hub import CommitOperationAdd

    for file in files:
        if file.path is not None and file_digest(file.path) != file.sha256:
            raise HubError(f"{file.path} changed during the push", "nothing was published", "push again")
    additions = [CommitOperationAdd(file.name, file.path or _content(file)) for file in files]
    # Apart from the commit: the library retries uploads itself, and a failed commit then repeats none of them.
    api.preupload_lfs_files(repo, additions, repo_type=kind, free_memory=False)
    _retried(lambda: api.create_commit(repo, additions, commit_message=message, repo_type=kind))


def _check_arrived(repo: str, files: Sequence[BundleFile], remote: dict[str, Any]) -> None:
    wrong = [file.name for file in files if not _same(file, remote.get(file.name))]
    if wrong:
        raise HubError(
            f"{repo} does not hold the files that were sent",
            f"the hub has other content, or none, for {', '.join(wrong)}",
            "push again; if it fails again, check whether the repository has a .gitignore",
        )


def _retried(call: Callable[[], _Result]) -> _Result:
    """Return a request's result; retry while the hub is busy or the connection breaks."""
    for attempt in range(1, _TRIES):
        try:
            return call()
        except Exception as error:
            response = getattr(error, "response", None)
            status = getattr(response, "status_code", 0)
            broken = "TransportError" in {kind.__name__ for kind in type(error).__mro__}
            if status not in _RETRIED_STATUS and not broken:
                raise
            retry_after = getattr(response, "headers", {}).get("Retry-After", "")
            pause = min(float(retry_after) if retry_after.isdigit() else 2.0**attempt, _LONGEST_PAUSE_S)
            reason = f"the hub answered {status}" if status else "the connection broke"
            console.line(f"  {reason}; next try in {pause:.0f} s")
            time.sleep(pause)
    return call()


@contextmanager
def _hub_errors(repo: str) -> Iterator[None]:
    """Turn the library's errors into HubErrors that say what to do."""
    try:
        yield
    except HubError:
        raise
    except Exception as error:
        words = explain(error, repo, writing=True)
        if words is None and isinstance(error, ValueError | RuntimeError):  # its own checks, and those of its storage
            words = HubMessage(
                f"the hub's library could not push to {repo}", clean_message(str(error)), "push again: it continues"
            )
        if words is None:
            raise
        raise HubError(*words) from error


@contextmanager
def _library_settings() -> Iterator[None]:
    """Give the library a timeout, and keep it from printing the signed addresses of its storage."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import logging as library
    from huggingface_hub.utils._http import default_client_factory  # the public function only replaces it
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    def client_with_timeout() -> Any:
        client = default_client_factory()
        client.timeout = _TIMEOUT_S
        return client

    verbosity, silent = library.get_verbosity(), are_progress_bars_disabled()
    library.set_verbosity(logging.ERROR)
    set_client_factory(client_with_timeout)
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    finally:
        set_client_factory(default_client_factory)
        library.set_verbosity(verbosity)
        if not silent:
            enable_progress_bars()

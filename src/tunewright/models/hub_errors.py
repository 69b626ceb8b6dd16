"""What the hub's refusals mean, for models that are fetched and for those that are pushed: the same words for both."""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

from tunewright.console import without_secrets
from tunewright.errors import HubError

_CHAIN = 12  # causes that are followed; the libraries wrap an answer two or three times
_MOST = 240  # characters of the hub's own message that are passed on
_SECRET = re.compile(r"hf_\w+|(?<=Bearer )\S+|(?<=\?)\S+")  # tokens, and the query of an address, which may be signed


class HubMessage(NamedTuple):
    """A refusal in words: what happened, why, and what to type."""

    headline: str
    cause: str
    hint: str


def endpoint() -> str:
    """Return the hub's address: ``HF_ENDPOINT``, else the public one."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def read_token() -> str:
    """Return the user's token, from the environment or the hub's own store.

    Raises:
        HubError: there is none, or it holds what no HTTP header may carry.
    """
    from huggingface_hub import get_token

    token = (get_token() or "").strip()
    if not token:
        raise HubError(
            "there is no token for the hub",
            "HF_TOKEN is not set, and no token is stored on this machine",
            f"create one that can write ({endpoint()}/settings/tokens), then: export HF_TOKEN=..., or: hf auth login",
        )
    if not re.fullmatch(r"[!-~]+", token):  # the HTTP library would quote the token in its error
        raise HubError(
            "the token for the hub is malformed",
            "it holds a space, a line end or a non-ASCII letter",
            "check its source, then: export HF_TOKEN=...",
        )
    return token


def explain(error: BaseException, repo: str, writing: bool) -> HubMessage | None:
    """Return what an error of the hub's libraries means; None where it came from elsewhere (a full disk, a defect).

    Args:
        error: as it was caught; what it wraps is looked through.
        repo: "owner/name" of the model that was asked for or written.
        writing: whether something was to be pushed.
    """
    chain = _chain(error)
    response = next((found for link in chain if (found := _response(link)) is not None), None)
    if response is not None:
        return _placed(_of_answer(response, writing), repo, _told(response))
    kinds = {kind.__name__ for link in chain for kind in type(link).__mro__}
    if _offline() or "OfflineModeIsEnabled" in kinds:
        return _placed(_OFFLINE[writing], repo)
    if kinds & {"TimeoutException", "TimeoutError"}:
        return _placed(_TIMEOUT[writing], repo)
    if kinds & {"TransportError", "LocalEntryNotFoundError", "ConnectionError"}:
        return _placed(_UNREACHABLE[writing], repo)
    return None


def clean_message(text: str) -> str:
    """Return a message of the hub on one line, without token or signature, not too long."""
    line = _SECRET.sub("…", without_secrets(" ".join(text.split())))
    return line if len(line) <= _MOST else f"{line[:_MOST]}…"


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and len(chain) < _CHAIN:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def _response(error: BaseException) -> Any:
    response = getattr(error, "response", None)
    return response if getattr(response, "status_code", 0) >= 400 else None


def _offline() -> bool:
    from huggingface_hub import is_offline_mode

    return is_offline_mode()


def _told(response: Any) -> str:
    """Return the hub's own reason, or nothing."""
    reason = response.headers.get("X-Error-Message") or ""
    if not reason:
        try:
            found = response.json()
        except (ValueError, RuntimeError):  # no JSON, or a body that was streamed and not read
            found = None
        error = found.get("error") if isinstance(found, dict) else None
        reason = error if isinstance(error, str) else ""
    return f": {clean_message(reason)}" if reason else ""


def _of_answer(response: Any, writing: bool) -> HubMessage:
    status = response.status_code
    if response.headers.get("X-Error-Code") == "GatedRepo":
        return _GATED
    if status == 401 and not writing and "authorization" not in response.request.headers:
        return _NOT_SEEN
    table = _WRITING if writing else _READING
    known = table.get(status) or _EITHER.get(status)
    if known is None:
        known = _IN_TROUBLE if status >= 500 else _REFUSED[writing]
    return HubMessage(known.headline, known.cause.replace("STATUS", str(status)), known.hint)


def _placed(words: HubMessage, repo: str, told: str = "") -> HubMessage:
    """Fill in the names; ``told`` is what the hub says itself."""
    owner, _, name = repo.rpartition("/")
    values = {"REPO": repo, "OWNER": owner or repo, "NAME": name, "HUB": endpoint()}
    filled = (re.sub(r"\b(REPO|OWNER|NAME|HUB)\b", lambda found: values[found.group()], part) for part in words)
    headline, cause, hint = filled
    return HubMessage(headline, cause + told, hint)


_SAME = "then run the same command again: it resumes"
_GATED = HubMessage(
    "REPO is gated: your account may not read it",
    "its license has to be accepted first (403)",
    "accept it on the model's page (HUB/REPO), then: export HF_TOKEN=...",
)
_NOT_SEEN = HubMessage(
    "the hub has no model REPO that you can see",
    "no such name, or it is private and no valid token was sent (401)",
    "check the spelling; for a private model: export HF_TOKEN=...",
)
_READING = {
    401: HubMessage(
        "the hub refused the token, so REPO cannot be read",
        "the token is unknown, expired or revoked (401)",
        "make a new one (HUB/settings/tokens), then: export HF_TOKEN=...",
    ),
    403: HubMessage(
        "the hub would not give REPO",
        "the token may not read this model (403)",
        "give the token read access (HUB/settings/tokens), then: export HF_TOKEN=...",
    ),
    404: HubMessage(
        "the hub has no model REPO that you can see",
        "no such name, or it is private and the token may not see it (404)",
        "check the spelling; for a private model: export HF_TOKEN=...",
    ),
}
_WRITING = {
    400: HubMessage(
        "the hub does not take what was to be pushed to REPO",
        "it answered 400",
        "read the reason above; the card and the files are shown by the same command without --yes",
    ),
    401: HubMessage(
        "the hub refused the token, so nothing was pushed to REPO",
        "the token is unknown, expired or revoked (401)",
        "make a new one that may write (HUB/settings/tokens), then: export HF_TOKEN=...",
    ),
    403: HubMessage(
        "the token may not write to REPO",
        "it is read-only, has no right in OWNER, or OWNER has no space left (403)",
        "make one that may write there (HUB/settings/tokens), then: export HF_TOKEN=...; or push to another OWNER",
    ),
    404: HubMessage(
        "the hub has no place REPO that you can write to",
        "OWNER does not exist, or REPO is private and the token may not see it (404)",
        "check the spelling; for a private repository: export HF_TOKEN=... of an account that may write there",
    ),
}
_EITHER = {
    409: HubMessage(
        "REPO was changed by someone else at the same moment",
        "another upload came first (409)",
        "wait until it has ended, " + _SAME,
    ),
    412: HubMessage(
        "REPO was changed by someone else at the same moment",
        "another upload came first (412)",
        "wait until it has ended, " + _SAME,
    ),
    429: HubMessage(
        "the hub asks to wait",
        "too many requests from this account or address (429)",
        "wait a few minutes, " + _SAME,
    ),
}
_IN_TROUBLE = HubMessage(
    "the hub is in trouble",
    "it answered STATUS, and did so again when asked again",
    "see https://status.huggingface.co, " + _SAME,
)
_REFUSED = {
    False: HubMessage("the hub would not give REPO", "it answered STATUS", "check the name and HF_TOKEN, " + _SAME),
    True: HubMessage("the hub would not take REPO", "it answered STATUS", "check the name and HF_TOKEN, " + _SAME),
}
_OFFLINE = {
    False: HubMessage(
        "REPO is not in the local cache and the hub cannot be reached",
        "HF_HUB_OFFLINE is set",
        "unset HF_HUB_OFFLINE once and run again, or give a folder: --set model.base=/path/to/NAME",
    ),
    True: HubMessage(
        "nothing was pushed to REPO: the hub may not be asked",
        "HF_HUB_OFFLINE is set",
        "unset HF_HUB_OFFLINE, " + _SAME,
    ),
}
_TIMEOUT = {
    False: HubMessage(
        "the hub did not answer in time for REPO", "the connection stood still", "check the network, " + _SAME
    ),
    True: HubMessage(
        "the hub did not answer in time, and REPO is not pushed whole",
        "the connection stood still",
        "check the network, " + _SAME,
    ),
}
_UNREACHABLE = {
    False: HubMessage(
        "REPO is not in the local cache and the hub cannot be reached",
        "no network, or the connection to HUB broke",
        "connect once and run again, or give a folder: --set model.base=/path/to/NAME",
    ),
    True: HubMessage(
        "the hub cannot be reached, and REPO is not pushed whole",
        "no network, or the connection to HUB broke",
        "check the network, " + _SAME,
    ),
}

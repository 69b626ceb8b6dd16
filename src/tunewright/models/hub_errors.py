"""Messages for the hub's refusals, the same for models that are fetched and models that are pushed."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from tunewright.console import without_secrets
from tunewright.errors import HubError

if TYPE_CHECKING:
    from httpx import Response

_MAX_CAUSES = 12  # followed; the libraries wrap an error two or three times
_MAX_CHARACTERS = 240  # of the hub's own message
_SECRET = re.compile(r"hf_\w+|(?<=Bearer )\S+|(?<=\?)\S+")  # tokens, and the query of an address, which may be signed


class HubMessage(NamedTuple):
    """What happened, why, and what to type."""

    headline: str
    cause: str
    hint: str


def endpoint() -> str:
    """Return the hub's address: ``HF_ENDPOINT``, else the public one."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def read_token() -> str:
    """Return the user's token, from the environment or the hub's own store.

    Raises:
        HubError: there is no token, or it holds a character that no HTTP header may carry.
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
    """Return the message for an error of the hub's libraries; None if it is no error of the hub (a full disk, a bug).

    Args:
        error: as it was caught; its causes are searched too.
        repo: "owner/name" of the model that was to be read or written.
        writing: whether the model was to be pushed.
    """
    chain = _chain(error)
    response = next((answer for link in chain if (answer := _response(link)) is not None), None)
    if response is not None:
        return _filled(_message_for(response, writing), repo, _reason(response))
    kinds = {kind.__name__ for link in chain for kind in type(link).__mro__}
    if _offline() or "OfflineModeIsEnabled" in kinds:
        return _filled(_OFFLINE[writing], repo)
    if kinds & {"TimeoutException", "TimeoutError"}:
        return _filled(_TIMEOUT[writing], repo)
    if kinds & {"TransportError", "LocalEntryNotFoundError", "ConnectionError"}:
        return _filled(_UNREACHABLE[writing], repo)
    return None


def clean_message(text: str) -> str:
    """Return a message of the hub on one line, without token or signature, not too long."""
    line = _SECRET.sub("…", without_secrets(" ".join(text.split())))
    return line if len(line) <= _MAX_CHARACTERS else f"{line[:_MAX_CHARACTERS]}…"


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and len(chain) < _MAX_CAUSES:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def _response(error: BaseException) -> Response | None:
    response: Response | None = getattr(error, "response", None)
    return response if getattr(response, "status_code", 0) >= 400 else None


def _offline() -> bool:
    from huggingface_hub import is_offline_mode

    return is_offline_mode()


def _reason(response: Response) -> str:
    """Return the hub's own reason behind a colon; empty without one."""
    reason = response.headers.get("X-Error-Message") or ""
    if not reason:
        try:
            body = response.json()
        except (ValueError, RuntimeError):  # no JSON, or a body that was streamed and not read
            body = None
        error = body.get("error") if isinstance(body, dict) else None
        reason = error if isinstance(error, str) else ""
    return f": {clean_message(reason)}" if reason else ""


def _message_for(response: Response, writing: bool) -> HubMessage:
    status = response.status_code
    if response.headers.get("X-Error-Code") == "GatedRepo":
        return _GATED
    if status == 401 and not writing and "authorization" not in response.request.headers:
        return _NOT_SEEN
    table = _WRITING if writing else _READING
    message = table.get(status) or _EITHER.get(status)
    if message is None:
        message = _IN_TROUBLE if status >= 500 else _REFUSED[writing]
    return HubMessage(message.headline, message.cause.replace("STATUS", str(status)), message.hint)


def _filled(message: HubMessage, repo: str, reason: str = "") -> HubMessage:
    """Fill in the names, and append the hub's own reason to the cause."""
    owner, _, name = repo.rpartition("/")
    values = {"REPO": repo, "OWNER": owner or repo, "NAME": name, "HUB": endpoint()}
    headline, cause, hint = (
        re.sub(r"\b(REPO|OWNER|NAME|HUB)\b", lambda match: values[match.group()], part) for part in message
    )
    return HubMessage(headline, cause + reason, hint)


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
        "make a new token (HUB/settings/tokens), then: export HF_TOKEN=...",
    ),
    403: HubMessage(
        "the hub refuses to send REPO",
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
        "the hub rejects the push to REPO",
        "it answered 400",
        "read the reason above; the same command without --yes shows the card and the files",
    ),
    401: HubMessage(
        "the hub refused the token, so nothing was pushed to REPO",
        "the token is unknown, expired or revoked (401)",
        "make a new token that may write (HUB/settings/tokens), then: export HF_TOKEN=...",
    ),
    403: HubMessage(
        "the token may not write to REPO",
        "it is read-only, has no right in OWNER, or OWNER has no space left (403)",
        "make a token that may write there (HUB/settings/tokens), then: export HF_TOKEN=...; or push to another OWNER",
    ),
    404: HubMessage(
        "the hub has no repository REPO that you can write to",
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
    "it answered STATUS, also to repeated requests",
    "see https://status.huggingface.co, " + _SAME,
)
_REFUSED = {
    False: HubMessage("the hub refuses to send REPO", "it answered STATUS", "check the name and HF_TOKEN, " + _SAME),
    True: HubMessage("the hub refuses to accept REPO", "it answered STATUS", "check the name and HF_TOKEN, " + _SAME),
}
_OFFLINE = {
    False: HubMessage(
        "REPO is not in the local cache and the hub cannot be reached",
        "HF_HUB_OFFLINE is set",
        "unset HF_HUB_OFFLINE once and run again, or give a folder: --set model.base=/path/to/NAME",
    ),
    True: HubMessage(
        "nothing was pushed to REPO: the hub is switched off",
        "HF_HUB_OFFLINE is set",
        "unset HF_HUB_OFFLINE, " + _SAME,
    ),
}
_TIMEOUT = {
    False: HubMessage(
        "the hub did not answer in time for REPO", "the connection stalled", "check the network, " + _SAME
    ),
    True: HubMessage(
        "the hub did not answer in time, and the push to REPO is incomplete",
        "the connection stalled",
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
        "the hub cannot be reached, and the push to REPO is incomplete",
        "no network, or the connection to HUB broke",
        "check the network, " + _SAME,
    ),
}

"""The identity of a recipe's teacher in request keys and fingerprints, and the checks of its settings."""

from __future__ import annotations

import os
from pathlib import Path

from tunewright.errors import RecipeError
from tunewright.models import source
from tunewright.settings import EMBEDDED, LOCAL, TeacherSettings
from tunewright.teacher.keys import key_uses, origin, require_allowed


def teacher_identity(settings: TeacherSettings, root: Path = Path()) -> str:
    """Return the teacher's identity in fingerprints and request keys; it holds no key and no password.

    A single URL is part of the identity, for at another URL the same name may be another model. Several URLs are not:
    a recipe that lists them states that one model answers at all of them. Servers may then come and go, in any order,
    and no request is paid for twice.

    Args:
        settings: the recipe's [teacher].
        root: the folder that a local teacher's relative path starts from.
    """
    if settings.url == EMBEDDED:
        return source.IDENTITY
    if settings.url == LOCAL:
        return f"{LOCAL}|{source.identity(settings.model, root)}|{settings.quantization}"
    return _at(settings.url, settings) if isinstance(settings.url, str) else _at("fleet", settings)


def _at(server: str, settings: TeacherSettings) -> str:
    """Return the identity at a URL or of a fleet; without its reasoning, a model gives other answers."""
    return f"{server.rstrip('/')}|{settings.model}{'' if settings.reasoning else '|without reasoning'}"


def earlier_identities(settings: TeacherSettings) -> tuple[str, ...]:
    """Return the other identities under which this teacher may have answered: as a fleet, or at each URL alone."""
    if settings.url in (EMBEDDED, LOCAL):
        return ()
    if isinstance(settings.url, str):
        return (_at("fleet", settings),)
    return tuple(sorted(_at(url, settings) for url in settings.url))


def read_api_key(settings: TeacherSettings) -> str:
    """Return the key from the environment, or "" when the recipe names no variable.

    Raises:
        RecipeError: the variable is not set, or holds characters that no HTTP header may carry.
    """
    name = settings.api_key_env
    if name and not os.environ.get(name):
        raise RecipeError(
            f"the environment variable {name} is not set",
            "teacher.api_key_env names it as the holder of the teacher's key",
            f"export {name}=...",
        )
    key = os.environ[name].strip() if name else ""
    if not (key.isascii() and key.isprintable()):
        raise RecipeError(
            f"the key in {name} is malformed",
            "a line end inside it, or a letter that is not ASCII",
            f"check its source, then: export {name}=...",
        )
    return key


def check_teacher(settings: TeacherSettings, section: str = "teacher") -> None:
    """Refuse settings with which no call can be made, before the first call.

    Args:
        settings: the recipe's [teacher], or its [judge] as one.
        section: "teacher" or "judge".

    Raises:
        RecipeError: a URL, the model or the key's variable is missing or wrong, or the key may not go to that server.
    """
    if settings.url == EMBEDDED:
        return
    if settings.url == LOCAL:
        if not settings.model:
            raise RecipeError(
                "teacher.model is empty",
                "a local teacher needs a folder or a hub name",
                "name it: --set teacher.model=owner/name",
            )
        return
    for url in settings.urls:
        if not origin(url):
            raise RecipeError(
                f"teacher.url {url!r} is not a URL",
                "it does not start with http:// or https:// and the name of a host",
                f'for example http://localhost:8000/v1; or, alone, "{EMBEDDED}" or "{LOCAL}"',
            )
    if not settings.model:
        first = settings.urls[0]
        raise RecipeError(
            "teacher.model is empty", f"{first} needs a model's name", f"list its models: curl {first}/models"
        )
    read_api_key(settings)
    require_allowed(list(key_uses(settings, section)))

"""The guard on every route of the application's own list, with every method, and on WebSockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.studio import COOKIE, HOST, METHODS, OWN, PORT, TOKEN, addresses, app_of, get, send
from tunewright.errors import UserError
from tunewright.studio.app import TOKEN as TOKEN_NAME
from tunewright.studio.app import token_of
from tunewright.studio.guard import HEADERS

ATTACKS: dict[str, tuple[dict[str, str], str, int]] = {
    "no token": ({}, HOST, 401),
    "wrong token": ({**OWN, "cookie": f"tunewright-{PORT}={'f' * 32}"}, HOST, 401),
    "wrong bearer": ({"authorization": f"Bearer {TOKEN[:-1]}"}, HOST, 401),
    "token of another port": ({**OWN, "cookie": f"tunewright-8080={TOKEN}"}, HOST, 401),
    "rebound name": (OWN, "attacker.example:8765", 403),
    "name that begins like ours": (OWN, "127.0.0.1.attacker.example", 403),
    "decimal address": (OWN, "2130706433:8765", 403),
    "no host": (OWN, "", 403),
    "foreign origin": ({**COOKIE, "origin": "https://attacker.example"}, HOST, 403),
    "null origin": ({**COOKIE, "origin": "null"}, HOST, 403),
    "another port of this machine": ({**COOKIE, "origin": "http://127.0.0.1:8000"}, HOST, 403),
    "cross-site": ({**COOKIE, "sec-fetch-site": "cross-site"}, HOST, 403),
    "same-site": ({**COOKIE, "sec-fetch-site": "same-site"}, HOST, 403),
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return app_of(tmp_path_factory.mktemp("studio"))


@pytest.mark.parametrize("address", addresses())
def test_every_route_and_method_refuses_what_is_not_its_own_page(app: Any, address: str) -> None:
    for name, (headers, host, status) in ATTACKS.items():
        for method in METHODS:
            reply = send(app, method, address, headers, host=host)
            assert reply.status == status, (name, method)
            assert reply.headers.items() >= {n.decode(): v.decode() for n, v in HEADERS.items()}.items()
        reply = send(app, "GET", address, headers, host=host, kind="websocket")
        assert reply.closed and not reply.accepted, name


@pytest.mark.parametrize("address", addresses())
def test_a_form_of_another_page_is_refused_even_with_the_cookie(app: Any, address: str) -> None:
    """A browser that names neither origin nor site is no browser of today, and a plain form needs no preflight."""
    headers = {**COOKIE, "content-type": "application/x-www-form-urlencoded"}
    assert send(app, "POST", address, headers, b"a=b").status == 403
    assert send(app, "GET", address, COOKIE, kind="websocket").closed


def test_a_header_given_twice_is_refused(app: Any) -> None:
    headers = [*COOKIE.items(), ("host", "attacker.example")]
    assert send(app, "GET", "/", headers).status == 403
    assert send(app, "POST", "/compare", [*OWN.items(), ("origin", "https://attacker.example")]).status == 403


def test_the_printed_address_sets_the_cookie_and_leaves_no_token_in_the_address(app: Any) -> None:
    reply = send(app, "GET", f"/?token={TOKEN}")
    assert reply.status == 303 and reply.headers["location"] == "/"
    assert "HttpOnly" in reply.headers["set-cookie"] and "SameSite=Strict" in reply.headers["set-cookie"]
    assert send(app, "GET", f"//attacker.example/?token={TOKEN}").headers["location"] == "/attacker.example/"
    assert send(app, "GET", f"/?token={TOKEN}", host="attacker.example").status == 403
    assert send(app, "POST", f"/compare?token={TOKEN}", {"origin": f"http://{HOST}"}).status == 401


def test_own_requests_pass(app: Any) -> None:
    assert get(app, "/").status == 200
    assert send(app, "GET", "/", {"authorization": f"Bearer {TOKEN}"}).status == 200
    assert send(app, "GET", "/", COOKIE, host="[::1]:8765").status == 200
    assert send(app, "GET", "/no-such-page", COOKIE).status == 404


def test_another_address_needs_a_token_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_NAME, raising=False)
    with pytest.raises(UserError, match="no token protects"):
        token_of(tmp_path, "0.0.0.0")
    for short in ("short", "with spaces in it, and long enough"):
        monkeypatch.setenv(TOKEN_NAME, short)
        with pytest.raises(UserError, match="is no token"):
            token_of(tmp_path, "127.0.0.1")
    monkeypatch.setenv(TOKEN_NAME, TOKEN)
    assert token_of(tmp_path, "0.0.0.0") == TOKEN
    open_app = app_of(tmp_path, "0.0.0.0")
    assert send(open_app, "GET", "/", host="192.0.2.7:8765").status == 401
    assert send(open_app, "GET", "/", COOKIE, host="192.0.2.7:8765").status == 200
    assert send(open_app, "GET", "/", COOKIE, host="attacker.example").status == 403


def test_the_token_survives_a_restart_and_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_NAME, raising=False)
    token = token_of(tmp_path, "127.0.0.1")
    assert token == token_of(tmp_path, "127.0.0.1") and len(token) == 32
    assert (tmp_path / ".studio/token").stat().st_mode & 0o077 == 0

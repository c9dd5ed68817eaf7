"""What is no request of ours: bodies, paths, heads and methods that nobody who means well sends."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence

from access.policy import ROLES
from attacks.routes import BATCH, OPEN, OWN, SIGNED, Route, as_json
from attacks.site import Browser, Request
from attacks.strangers import request_of
from attacks.suite import ANY, INVALID, Attack, Expected, World

_FORM = "POST /v1/signin/oidc/{provider}/logout"
_TOO_LARGE: Expected = ((413, "body_too_large"),)
_MORE_THAN_A_BATCH = 8 * 1024 * 1024 + 1
_MORE_THAN_A_COMMAND = 60 * 1024 + 1
_DEEP = 2_000


def bodies(world: World) -> Iterator[Attack]:
    """Oversized and malformed bodies, by those who may send one: size, depth, encodings, NUL, duplicate keys, huge numbers."""
    people = world.site.joined("careless", ("administrator",)).browser
    posts = [route for route in world.routes if route.method == "POST"]
    for place, route in enumerate(posts):
        kinds = list(_bodies(route))
        chosen = [kinds[(place * 3 + n) % len(kinds)] for n in range(3)] if world.quick else kinds
        for what, raw, expects, more in chosen:
            asked = _as_who_may(world, route, raw, people)
            asked = asked._replace(headers={**asked.headers, **more})
            yield Attack("malformed", route.name, what, asked, expects)


def _bodies(route: Route) -> Iterator[tuple[str, bytes, Expected, Mapping[str, str]]]:
    none: dict[str, str] = {}
    largest = _MORE_THAN_A_BATCH if route.name == BATCH else _MORE_THAN_A_COMMAND
    yield "more bytes than any", b'{"a":"' + b"a" * largest + b'"}', _TOO_LARGE, none
    if route.name == _FORM:
        return
    body = route.body if isinstance(route.body, dict) else {}
    good = as_json(body)
    open_, close = b'{"x":', b"}"
    yield "half a body", good[:-1] or b"{", INVALID, none
    yield "two bodies", good + good, INVALID, none
    yield "a list", b"[" + good + b"]", INVALID, none
    yield "null", b"null", INVALID, none
    yield "bytes that are no UTF-8", b'{"\xff\xfe":1}', INVALID, none
    yield "UTF-16", good.decode().encode("utf-16"), INVALID, none
    yield "a byte order mark", b"\xef\xbb\xbf" + good, INVALID, none
    yield "a bare NUL", good[:-1] + b"\x00}", INVALID, none
    yield "objects in objects", open_ * _DEEP + b"1" + close * _DEEP, INVALID, none
    yield "lists in lists", b'{"x":' + b"[" * _DEEP + b"]" * _DEEP + b"}", INVALID, none
    yield "a field that nobody knows", as_json({**body, "is_admin": True}), INVALID, none
    yield "NaN", good[:-1] + (b"," if body else b"") + b'"x":NaN}', INVALID, none
    yield "compressed", gzip.compress(good), INVALID, {"Content-Encoding": "gzip"}
    for name, value in body.items():
        rest = {each: other for each, other in body.items() if each != name}
        first, last = _pair(name, _wrong(value)), _pair(name, value)
        yield f"{name} twice, first wrong", _joined(rest, first, last), INVALID, none
        yield f"{name} twice, then wrong", _joined(rest, last, first), INVALID, none
        yield f"{name} of another type", as_json({**body, name: _wrong(value)}), INVALID, none
        if isinstance(value, str):
            yield f"{name} with a NUL", as_json({**body, name: value + "\x00"}), INVALID, none
            yield f"{name} with half a character", as_json({**body, name: "\ud800"}), INVALID, none
        if isinstance(value, int) and not isinstance(value, bool):
            yield f"{name} of a thousand digits", _joined(rest, f'"{name}":{"9" * 1000}'), INVALID, none
            yield f"{name} = 1e999", _joined(rest, f'"{name}":1e999'), INVALID, none
        if isinstance(value, dict) and "amount" in value:
            for what, amount in (
                ("negative", "-1"),
                ("a fraction", "1.5"),
                ("2^53", str(2**53)),
                ("huge", "1" + "0" * 400),
            ):
                said = f'"{name}":{{"amount":{amount},"currency":"EUR"}}'
                yield f"{name} that is {what}", _joined(rest, said), INVALID, none


def _wrong(value: object) -> object:
    return {"is": "wrong"} if not isinstance(value, dict) else 7


def _pair(name: str, value: object) -> str:
    return f"{json.dumps(name)}:{json.dumps(value)}"


def _joined(rest: Mapping[str, object], *pairs: str) -> bytes:
    return ("{" + ",".join([*(_pair(name, value) for name, value in rest.items()), *pairs]) + "}").encode()


def _as_who_may(world: World, route: Route, raw: bytes, people: Browser) -> Request:
    """By a right that the route asks for: a role, a session, a provider's signature."""
    site = world.site
    if SIGNED.fullmatch(route.name):
        provider = "psp" if route.template.endswith("/callbacks") else "reel"
        asked = request_of(world, route, site.signed(provider, raw), provider=provider)
    elif route.name in OWN:
        asked = request_of(world, route, people.headers())
    elif route.name in OPEN:
        asked = request_of(world, route, {})
    else:
        may = next((role for role, granted in ROLES.items() if granted.intersection(route.actions)), "supervisor")
        asked = request_of(world, route, site.as_role(may))
    return asked._replace(body=raw)


def paths(world: World) -> Iterator[Attack]:
    """Methods, paths, queries and heads, on every route."""
    site = world.site
    for place, route in enumerate(world.routes):
        kinds = list(_shapes(world, route))
        for what, asked, expects in [kinds[place % len(kinds)]] if world.quick else kinds:
            yield Attack("malformed", route.name, what, asked, expects)
    host = f"Host: {site.host}".encode()
    for what, raw, raw_expected in _raw(host):
        yield Attack("malformed", "any", what, Request("GET", "/", raw=raw), raw_expected)


def _shapes(world: World, route: Route) -> Iterator[tuple[str, Request, Expected]]:
    known = world.site.as_role("supervisor")
    path = route.path(world.ids)
    bare = path.partition("?")[0]
    methods = {each.method for each in world.routes if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", each.template), bare)}
    for method in sorted({"PUT", "DELETE", "PATCH", "GET", "POST", "TRACE"} - methods):
        body = b"{}" if method in ("PUT", "PATCH", "POST") else None
        yield f"{method} in its place", Request(method, path, known, body), ((405, "method_not_allowed"),)
    override = {**known, "X-HTTP-Method-Override": "DELETE", "X-Original-URL": "/metrics"}
    if route.method == "GET" and route.actions:
        yield "another slash", Request("GET", bare + "/", known), ((404, "not_found"), (422, ANY))
        yield "a method in a field", Request("PUT", path, override), ((405, "method_not_allowed"),)
    long = Request(route.method, bare + "?" + "x" * 5000 + "=1", known)
    yield "a long query", long, ((414, "uri_too_long"),)
    many = "&".join(f"a{n}=1" for n in range(40))
    yield "forty parameters", Request(route.method, f"{bare}?{many}", known), ((414, "uri_too_long"),)
    yield "a parameter twice", Request(route.method, f"{bare}?limit=1&limit=2", known), ((414, "uri_too_long"),)
    yield "a long path", Request(route.method, bare + "/" + "x" * 1100, known), ((414, "uri_too_long"),)
    if "{" in route.template and route.actions:
        outside: Expected = ((404, ANY), (422, ANY), (403, ANY))
        for what, text in (
            ("NUL", "%00"),
            ("a way up", "..%2f..%2fmetrics"),
            ("SQL", "'%20OR%201=1--"),
            ("a newline", "x%0d%0aX:1"),
        ):
            ids = dict.fromkeys(world.ids, "@")
            odd = route.path(ids).replace("%40", text).replace("@", text)
            body = None if route.body is None else as_json(route.body)
            key = {"Idempotency-Key": world.site.key()} if route.keyed else {}
            given = {**world.site.as_role("compliance"), "Content-Type": "application/json", **key}
            yield f"{what} for an identifier", Request(route.method, odd, given, body), outside
    fields = {**known, **{f"X-{n}": "1" for n in range(70)}}
    yield "seventy header fields", Request(route.method, path, fields), ((431, "head_too_large"),)
    if route.method == "GET":
        body = b'{"a":1}'
        yield "a body", Request("GET", path, known, body), ((413, "body_too_large"),)
    if route.keyed:
        for what, key_ in (("no key", None), ("an empty key", ""), ("a long key", "k" * 201)):
            asked = request_of(world, route, world.site.as_role("supervisor"))
            others = {name: value for name, value in asked.headers.items() if name != "Idempotency-Key"}
            others |= {} if key_ is None else {"Idempotency-Key": key_}
            refused: Expected = ((400, "idempotency_key_missing"), (403, ANY))
            yield what, asked._replace(headers=others), refused


def _raw(host: bytes) -> Sequence[tuple[str, bytes, Expected]]:
    """Requests that two readers may read as two different ones (RFC 9112, 6.3 and 11.2), and what is no HTTP."""
    ended: Expected = ((0, None), (400, ANY), (401, ANY), (403, ANY), (404, ANY), (405, ANY), (422, ANY), (431, ANY))
    post = b"POST /v1/players HTTP/1.1\r\n" + host + b"\r\n"
    within = b"GET /v1/dashboard HTTP/1.1\r\n\r\n"
    return (
        ("two lengths", post + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}" + within, ended),
        (
            "a length and chunks",
            post + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + within,
            ended,
        ),
        ("chunks that are named oddly", post + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", ended),
        ("a negative length", post + b"Content-Length: -1\r\n\r\n", ended),
        ("a chunk of no number", post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", ended),
        ("a field over two lines", post + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n", ended),
        ("a space before the colon", post + b"Content-Length : 2\r\n\r\n{}", ended),
        ("no HTTP", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"\x00" * 64 + b"\r\n\r\n", ended),
        ("a head of 40 KiB", b"GET / HTTP/1.1\r\n" + host + b"\r\nX: " + b"x" * 40_960 + b"\r\n\r\n", ended),
        ("another version", b"GET /v1/dashboard HTTP/9.9\r\n" + host + b"\r\n\r\n", ended),
        ("a proxy's form", b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n" + host + b"\r\n\r\n", ended),
    )

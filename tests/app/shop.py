"""A tiny service that answers POST /v1/batch over real HTTP as a region does, with faults on demand. For tests of clients."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = Callable[[BaseHTTPRequestHandler, "Shop"], bool]
"""Answers a request in the service's place, if it likes: then True."""


class Shop:
    """Keeps each key's path and body, and says `repeated` when it comes again; other content is refused as the API does."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.kept: dict[str, dict[str, Any]] = {}
        self.order: list[str] = []
        self.sizes: list[int] = []
        self.requests = 0
        self.authorization = ""
        self.refused: dict[str, dict[str, Any]] = {}
        self.before: list[Fault] = []
        self.after: list[Fault] = []
        self.url = ""

    def deposits(self) -> list[dict[str, Any]]:
        return [self.kept[key]["body"] for key in self.order if ":player:" not in key]

    def players(self) -> list[dict[str, Any]]:
        return [self.kept[key]["body"] for key in self.order if ":player:" in key]

    def run(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = []
        for item in items:
            named = item["path"].partition("$")[2].partition("/")[0]
            if named and results[int(named)]["status"] not in (200, 201):
                results.append({"status": 424, "body": {"title": "depends", "code": "dependency_failed"}})
            elif item["key"] in self.refused:
                refusal = self.refused[item["key"]]
                results.append({"status": refusal["status"], "body": refusal})
            else:
                results.append(self._keep(item, results[int(named)]["body"]["player"] if named else None))
        return results

    def _keep(self, item: dict[str, Any], player: str | None) -> dict[str, Any]:
        content = {"player": player, "body": item["body"]}
        known = self.kept.get(item["key"])
        if known and known != content:
            return {"status": 409, "body": {"title": "reused", "code": "key_reused"}}
        if not known:
            self.kept[item["key"]] = content
            self.order.append(item["key"])
        made = {"player": item["key"].rpartition(":")[2]} if player is None else {"transaction": "transaction_1"}
        return {"status": 201, "body": made, "position": "eu/1/ab", **({"repeated": True} if known else {})}


def answer(request: BaseHTTPRequestHandler, status: int, body: Any, **headers: str) -> bool:
    raw = json.dumps(body).encode()
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.send_header("Content-Length", str(len(raw)))
    request.end_headers()
    request.wfile.write(raw)
    return True


def hang_up(request: BaseHTTPRequestHandler, _shop: Shop) -> bool:
    """As a killed process does."""
    request.close_connection = True
    return True


def busy(request: BaseHTTPRequestHandler, _shop: Shop) -> bool:
    return answer(request, 503, {"title": "busy", "code": "unavailable"}, Retry_After="1")


@contextmanager
def open_shop() -> Iterator[Shop]:
    shop = Shop()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # one packet an answer

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            with shop.lock:
                shop.requests += 1
                shop.authorization = self.headers["Authorization"]
                if shop.before and shop.before.pop(0)(self, shop):
                    return
                items = json.loads(raw)["items"]
                shop.sizes.append(len(items))
                results = shop.run(items)
                if shop.after and shop.after.pop(0)(self, shop):
                    return
            answer(self, 200 if self.path == "/v1/batch" else 404, {"items": results})

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    shop.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield shop
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

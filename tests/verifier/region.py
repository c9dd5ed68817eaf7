"""A tiny region: a real HTTP server that shows logs as the product does, and misbehaves on request."""

import json
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.verifier.logs import ORIGIN, Entry

TOKEN = "let-me-read"


@dataclass
class Region:
    logs: dict[str, list[Entry]]
    origins: dict[str, str] = field(default_factory=dict)
    announce: dict[str, Any] = field(default_factory=dict)  # laid over every item of /v1/logs
    page: int = 100  # logs a page
    break_after: int | None = None  # entries of a stream, in the middle of the next line
    end_after: int | None = None  # entries of a stream, which then ends properly
    busy: int = 0  # how many requests for entries are answered with 503
    retry_after: str | None = None  # said with every 503
    status: int | None = None  # answers everything with it
    answer: bytes | None = None  # answers everything with it
    files: dict[str, bytes] = field(default_factory=dict)  # tiles, checkpoints and so on, by path
    signed: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)  # size and note of every head, by log
    requests: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def asked_for_entries(self) -> list[int]:
        """The positions behind which single entries were asked for."""
        return [int(request.rpartition("=")[2]) for request in self.requests if "/entries?after=" in request]


class Server(ThreadingHTTPServer):
    def __init__(self, region: Region) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.region = region

    def handle_error(self, *_: object) -> None:
        """A reader that has seen enough hangs up."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        region = self.server.region
        region.requests.append(self.path)
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if region.status is not None:
            said = {} if region.retry_after is None else {"Retry-After": region.retry_after}
            self.reply(region.status, b"", {"Location": "https://elsewhere.example/", **said})
        elif region.answer is not None:
            self.reply(200, region.answer)
        elif self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.reply(401, b'{"code":"unauthenticated"}')
        elif url.path == "/v1/logs":
            self.heads(region, int(query.get("cursor", ["0"])[0]))
        elif url.path in region.files:
            self.reply(200, region.files[url.path])
        elif url.path.endswith("/heads") and region.signed:
            self.signed(region.signed[url.path.split("/")[3]], int(query["after"][0]), int(query["limit"][0]))
        elif not url.path.endswith("/entries"):
            self.reply(404, b"")
        elif region.busy:
            region.busy -= 1
            self.reply(503, b"", {} if region.retry_after is None else {"Retry-After": region.retry_after})
        else:
            _, _, _, log, _ = url.path.split("/")
            assert self.headers["Accept"] == "application/x-ndjson"
            self.entries(region, region.logs[log][int(query["after"][0]) :])

    def heads(self, region: Region, start: int) -> None:
        items = [
            {
                "log": log,
                "origin": region.origins.get(log, ORIGIN.replace("/eu", f"/{log}")),
                "position": len(entries),
                "leaf": entries[-1][2].hex() if entries else None,
                **region.announce,
            }
            for log, entries in region.logs.items()
        ]
        end = start + region.page
        answer = {"items": items[start:end], "next_cursor": str(end) if end < len(items) else None}
        self.reply(200, json.dumps(answer).encode())

    def signed(self, heads: list[tuple[int, bytes]], after: int, limit: int) -> None:
        page = [{"size": size, "note": note.decode()} for size, note in heads if size > after][:limit]
        more = page and page[-1]["size"] < heads[-1][0]
        self.reply(200, json.dumps({"items": page, "next_cursor": "more" if more else None}).encode())

    def entries(self, region: Region, entries: list[Entry]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        for number, (position, entry, leaf) in enumerate(entries):
            if number == region.end_after:
                break
            item = {"position": position, "leaf": leaf.hex(), "entry": b64encode(entry).decode()}
            line = json.dumps(item).encode() + b"\n"
            if number == region.break_after:
                self.wfile.write(b"%x\r\n" % len(line) + line[:50])
                return
            for part in (line[:70], line[70:]):  # chunks need not be lines
                self.wfile.write(b"%x\r\n" % len(part) + part + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def reply(self, status: int, answer: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


@contextmanager
def serving(region: Region) -> Iterator[Region]:
    with Server(region) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        region.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield region
        finally:
            server.shutdown()
            thread.join()

"""
The witness that a regulator runs: `countroom-verifier witness`, a small HTTP server around `verifier.witness`.

    POST <any prefix>/add-checkpoint    as tlog-witness says: 200, 400, 403, 404, 409, 422
    GET /                               its name, its vkey and what it has cosigned, in plain text

Besides, 411 is a body without a length, 413 one that is too long, 500 a record that could not be
read or written: then nothing was cosigned. A folder holds everything: `key`, readable by its owner only; `heads/` and
`evidence/`, as `verifier.witness.FileStore` says.

Invariants:
    - it does not cosign with a key other than the one that made the record;
    - whoever connects can neither make it use unbounded memory nor an unbounded number of threads;
    - when it is told to stop, requests that have come in are answered first.
"""

import argparse
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from verifier.encoding import read_base64, read_decimal, write_base64
from verifier.faults import quoted
from verifier.note import Kind, NoteError, VerifierKey, key_of, parse_checkpoint, verify_note
from verifier.policy import PolicyError, parse_policy
from verifier.witness import (
    REQUEST_BYTES_MAX,
    Acceptable,
    Answer,
    Evidence,
    FileStore,
    RecordDamaged,
    Witness,
    locked,
    write_durably,
)

STOPPED, NOT_STARTED = 0, 2

CONNECTIONS_MAX = 64
SILENCE_S_MAX = 10  # of a client that should send or read something

_PRIVATE = "PRIVATE+KEY"  # as Go's golang.org/x/mod/sumdb/note begins the text of a private key


class WitnessError(Exception):
    """The witness cannot be started like this; the message says why."""


class WitnessKey(NamedTuple):
    """A witness's own key. As text it is PRIVATE+KEY+<name>+<key id>+<base64 of the type 0x04 and the seed>."""

    name: str
    private: Ed25519PrivateKey

    @property
    def public(self) -> VerifierKey:
        return key_of(self.name, Kind.COSIGNATURE, self.private)

    def __str__(self) -> str:
        seed = write_base64(bytes([Kind.COSIGNATURE]) + self.private.private_bytes_raw())
        return f"{_PRIVATE}+{self.name}+{self.public.key_id.hex()}+{seed}"


def make_key(folder: Path, name: str) -> WitnessKey:
    """
    The key in the folder, made if there is none. Raises WitnessError if there is one of another name, NoteError for a
    name that no key may have, OSError.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "key"
    with locked(folder / "key.lock"):
        if not path.exists():
            write_durably(path, f"{WitnessKey(name, Ed25519PrivateKey.generate())}\n".encode())
    key = read_key(folder)
    if key.name != name:
        raise WitnessError(f"the key in {folder} has the name {quoted(key.name)}, and keeps it; use another folder")
    return key


def read_key(folder: Path) -> WitnessKey:
    """The key in the folder. Raises WitnessError if there is none, or it is damaged; OSError."""
    path = folder / "key"
    try:
        text = path.read_text(encoding="utf-8")
        *private, name, _, encoded = text.removesuffix("\n").split("+", 4)
        material = read_base64(encoded)
        key = WitnessKey(name, Ed25519PrivateKey.from_private_bytes(material[1:]))
        if "+".join(private) != _PRIVATE or text != f"{key}\n":
            raise WitnessError(f"{path} is damaged, or no key of a witness")
    except FileNotFoundError:
        raise WitnessError(f"{folder} holds no key; make one with 'countroom-verifier witness-key'") from None
    except (ValueError, NoteError):  # of ValueError, UnicodeDecodeError is one
        raise WitnessError(f"{path} is damaged, or no key of a witness") from None
    return key


class Server(ThreadingHTTPServer):
    """Serves a witness until it is stopped. Raises OSError if the address cannot be listened at."""

    daemon_threads = False  # closing waits for them
    request_queue_size = CONNECTIONS_MAX

    def __init__(self, address: tuple[str, int], witness: Witness, store: FileStore) -> None:
        super().__init__(address, Handler)
        self.witness = witness
        self.store = store
        self._connections: set[socket.socket] = set()

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}/"

    def stop(self) -> None:
        """Take no more connections, read no more requests, answer those that were read. Not from the serving thread."""
        self.shutdown()
        for connection in list(self._connections):
            with suppress(OSError):  # it was closed in the meantime
                connection.shutdown(socket.SHUT_RD)
        self.server_close()

    def verify_request(self, request: object, client_address: object) -> bool:  # noqa: ARG002 - the base class's
        return len(self._connections) < CONNECTIONS_MAX

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - the base class's
        say(f"a connection broke: {sys.exc_info()[1]!r}")


class Handler(BaseHTTPRequestHandler):
    """One connection: any number of requests, one after the other."""

    protocol_version = "HTTP/1.1"
    timeout = SILENCE_S_MAX
    error_message_format = "%(message)s\n"
    error_content_type = "text/plain; charset=utf-8"
    server: Server

    def do_GET(self) -> None:
        """Tell who the witness is, and what it has cosigned."""
        if self.path != "/":
            self._reply(Answer(404, b"GET / is all there is to read\n"))
            return
        try:
            page = describe(self.server.witness, self.server.store)
        except (OSError, RecordDamaged) as error:
            self._reply(self._failed(error))
            return
        self._reply(Answer(200, page.encode()))

    def do_POST(self) -> None:
        """Judge a head, and cosign it."""
        body = self._read_body()
        if body is None:
            return
        if not self.path.endswith("/add-checkpoint"):
            self._reply(Answer(404, b"POST <prefix>/add-checkpoint is all there is to send\n"))
            return
        witness = self.server.witness
        try:
            outcome = witness.judge(body)
            answer = witness.cosign(outcome) if isinstance(outcome, Acceptable) else outcome
        except (OSError, RecordDamaged) as error:
            self._reply(self._failed(error))
            return
        if isinstance(outcome, Acceptable) and answer.status == HTTPStatus.OK:
            head = outcome.checkpoint
            say(f"cosigned {head.origin} size {head.size} root {write_base64(head.root)}")
        else:
            say(f"refused with {answer.status}: {quoted(answer.body.decode().rstrip())}")
        self._reply(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
        """What is worth a line is said above."""

    def version_string(self) -> str:
        return "countroom-verifier"

    def _read_body(self) -> bytes | None:
        """The body; None if it was answered, or the client went away, and the connection ends."""
        close, self.close_connection = self.close_connection, True
        stated = self.headers.get("Content-Length")
        if stated is None or "Transfer-Encoding" in self.headers:
            self.send_error(HTTPStatus.LENGTH_REQUIRED)
            return None
        try:
            length = read_decimal(stated)
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST, "the Content-Length is no number")
            return None
        if length > REQUEST_BYTES_MAX:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return None
        body = self.rfile.read(length)
        if len(body) < length:
            return None
        self.close_connection = close
        return body

    def _failed(self, error: Exception) -> Answer:
        say(f"FAILED, nothing was cosigned: {error}")
        return Answer(500, b"the witness cannot read or write its record; its operator is told\n")

    def _reply(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)


def describe(witness: Witness, store: FileStore) -> str:
    """The page of a witness. Raises RecordDamaged, OSError."""
    lines = [f"name      {witness.key.name}", f"vkey      {witness.key}"]
    for origin in witness.origins:
        note = witness.newest(origin)
        if note is None:
            lines.append(f"log       {origin}  nothing cosigned yet")
            continue
        opened = verify_note(note, [witness.key])
        head = parse_checkpoint(opened.text)
        at = _utc(opened.signatures[0].timestamp_s or 0)
        lines.append(f"log       {origin}  size {head.size}  root {write_base64(head.root)}  cosigned {at}")
    lines += (f"evidence  {path.parent.name}/{path.name}" for path in store.kept())
    return "".join(f"{line}\n" for line in lines)


def open_server(folder: Path, policy: bytes, key: WitnessKey, address: tuple[str, int]) -> Server:
    """
    A server for the logs that a policy names; it is listening, but not served yet.

    Raises WitnessError, PolicyError, RecordDamaged, OSError.
    """
    logs = [log.key for log in parse_policy(policy).logs]
    if not logs:
        raise WitnessError("the policy names no log")
    store = FileStore(folder)

    def keep(evidence: Evidence) -> None:
        if store.keep(evidence):
            say(f"EVIDENCE that {evidence.origin} is not append-only, kept in {store.evidence}: {evidence.why}")

    witness = Witness(key.name, key.private, logs, store, now_s=lambda: int(time.time()), evidence=keep)
    try:
        describe(witness, store)
    except NoteError:
        raise WitnessError(f"what {folder} says to be cosigned was not cosigned with the key there") from None
    return Server(address, witness, store)


def serve(server: Server) -> None:
    """Serve until SIGTERM or SIGINT, and stop. No thread may run yet: all threads inherit that those signals wait."""
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    serving.start()
    sys.stdout.write(f"listening on {server.url}\n")
    sys.stdout.flush()
    signal.sigwait(stops)
    server.stop()
    serving.join()
    say("stopped")


def main(arguments: Sequence[str]) -> int:
    """Run `witness` or `witness-key`, which the first argument names; the answer is the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "witness-key":
            key = make_key(options.folder, options.name)
            sys.stdout.write(f"witness {key.name} {key.public}\n")
        else:
            key = make_key(options.folder, options.name) if options.name else read_key(options.folder)
            serve(open_server(options.folder, options.policy.read_bytes(), key, options.listen))
    except (WitnessError, PolicyError, NoteError, RecordDamaged, OSError) as error:
        sys.stderr.write(f"could not start: {error}\n")
        return NOT_STARTED
    return STOPPED


def say(what: str) -> None:
    """One line on standard error, with the time."""
    sys.stderr.write(f"{_utc(int(time.time()))} {what}\n")
    sys.stderr.flush()


def _utc(time_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_s))


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) >= 1 << 16:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="countroom-verifier", description="Be a witness of other people's logs.")
    commands = parser.add_subparsers(dest="command", required=True)
    witness = commands.add_parser("witness", help="cosign the logs of a policy file, until told to stop")
    witness.add_argument("--policy", metavar="FILE", type=Path, required=True, help="its logs are cosigned")
    witness.add_argument("--folder", metavar="DIR", type=Path, required=True, help="key, record and evidence")
    witness.add_argument("--name", help="make a key of this name if the folder holds none")
    witness.add_argument(
        "--listen",
        metavar="HOST:PORT",
        type=_address,
        default=("127.0.0.1", 0),
        help="where to listen; port 0 (the default, at 127.0.0.1) is any free one, which is printed",
    )
    key = commands.add_parser("witness-key", help="make the key of a witness; print its line for a policy file")
    key.add_argument("--folder", metavar="DIR", type=Path, required=True)
    key.add_argument("--name", required=True, help="such as regulator.example/witness")
    return parser

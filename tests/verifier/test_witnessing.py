"""The stand-alone witness: a real process over HTTP, started, asked, killed and started again."""

import http.client
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier, Thread

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.verifier.growing import ORIGIN, WITNESS, Log
from verifier import cli, witnessing
from verifier.encoding import write_base64
from verifier.note import NoteError, verify_note
from verifier.policy import parse_policy
from verifier.witness import REQUEST_BYTES_MAX, FileStore, format_request, locked
from verifier.witnessing import WitnessError, make_key, read_key

LOG = Log()
US = Log(origin="countroom.test/us", key=Ed25519PrivateKey.generate())
PROGRAM = [sys.executable, "-m", "verifier.cli"]


@dataclass
class Running:
    """A witness's process, and where it listens."""

    process: subprocess.Popen[str]
    port: int

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str, bytes]:
        """Status, content type and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body)
            return read(connection.getresponse())
        finally:
            connection.close()

    def post(self, body: bytes) -> tuple[int, str, bytes]:
        return self.request("POST", "/add-checkpoint", body)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> str:
        """What it said on standard error."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=60)[1]


def read(answer: http.client.HTTPResponse) -> tuple[int, str, bytes]:
    return answer.status, answer.headers["Content-Type"], answer.read()


def policy_of(*logs: Log) -> bytes:
    return "".join(f"log {log.vkey}\n" for log in logs).encode() + b"quorum none\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A witness's folder with a key, and beside it a policy."""
    make_key(tmp_path / "witness", WITNESS)
    (tmp_path / "trust.policy").write_bytes(policy_of(LOG, US))
    return tmp_path / "witness"


@contextmanager
def running(folder: Path, *more: str) -> Iterator[Running]:
    arguments = ["witness", "--policy", str(folder.parent / "trust.policy"), "--folder", str(folder), *more]
    process = subprocess.Popen(
        [*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    with process:
        try:
            line = process.stdout.readline()
            match = re.fullmatch(r"listening on http://127\.0\.0\.1:(\d+)/\n", line)
            assert match, line + process.stderr.read()
            yield Running(process, int(match[1]))
        finally:
            if process.poll() is None:
                process.kill()


def is_cosigned(folder: Path, note: bytes, answer: tuple[int, str, bytes]) -> bool:
    status, content_type, body = answer
    if status != 200:
        return False
    assert content_type == "text/plain; charset=utf-8"
    (signature,) = verify_note(note + body, [read_key(folder).public]).signatures
    return signature.timestamp_s is not None


# The protocol over HTTP


def test_the_witness_answers_as_the_specification_says(folder: Path) -> None:
    lie = LOG.forked(3)
    with running(folder) as witness:
        assert witness.post(b"old zero\n\n")[0] == 400
        assert witness.post(Log(origin="countroom.test/ap").request(0, 1))[0] == 404
        assert witness.post(Log(key=US.key).request(0, 1))[0] == 403
        assert is_cosigned(folder, LOG.note(5), witness.post(LOG.request(0, 5)))
        assert witness.post(LOG.request(0, 7)) == (409, "text/x.tlog.size", b"5\n")
        assert witness.post(lie.request(5, 5))[0] == 409
        assert witness.post(lie.request(5, 9))[0] == 422
        assert witness.post(format_request(5, [], LOG.note(9)))[0] == 422
        assert witness.post(format_request(5, [], LOG.note(4)))[0] == 400
        assert is_cosigned(folder, LOG.note(5), witness.post(LOG.request(5, 5)))
        assert is_cosigned(folder, LOG.note(9), witness.post(LOG.request(5, 9)))
        assert is_cosigned(folder, US.note(2), witness.request("POST", "/any/prefix/add-checkpoint", US.request(0, 2)))
        said = witness.stop()
    assert f"cosigned {ORIGIN} size 9 root {write_base64(LOG.root(9))}\n" in said
    assert said.count(f"EVIDENCE that {ORIGIN} is not append-only") == 2
    assert said.count("refused with ") == 8
    assert "Traceback" not in said


def test_the_page_says_who_the_witness_is_and_what_it_cosigned(folder: Path) -> None:
    with running(folder) as witness:
        witness.post(LOG.request(0, 5))
        witness.post(LOG.forked(3).request(5, 5))
        status, content_type, page = witness.request("GET", "/")
    assert (status, content_type) == (200, "text/plain; charset=utf-8")
    evidence = FileStore(folder).kept()[0].name
    name, vkey, eu, us, kept = page.decode().splitlines()
    assert name == f"name      {WITNESS}"
    assert vkey == f"vkey      {read_key(folder).public}"
    assert re.fullmatch(
        rf"log       {ORIGIN}  size 5  root {re.escape(write_base64(LOG.root(5)))}  cosigned \d{{4}}-.*Z", eu
    )
    assert us == f"log       {US.origin}  nothing cosigned yet"
    assert kept == f"evidence  evidence/{evidence}"


def test_what_is_no_submission_is_refused(folder: Path) -> None:
    with running(folder) as witness:
        assert witness.request("GET", "/add-checkpoint")[0] == 404
        assert witness.request("GET", "/key")[0] == 404
        assert witness.request("POST", "/", LOG.request(0, 5))[0] == 404
        assert witness.request("PUT", "/add-checkpoint", LOG.request(0, 5))[0] == 501
        for lengths, status in (
            (b"", 411),
            (b"Transfer-Encoding: chunked\r\n", 411),
            (b"Content-Length: -1\r\n", 400),
            (b"Content-Length: %d\r\n" % (REQUEST_BYTES_MAX + 1), 413),
        ):
            with socket.create_connection(("127.0.0.1", witness.port), timeout=60) as raw:
                raw.sendall(b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\n" + lengths + b"\r\n")
                assert raw.makefile("rb").readline().split()[1] == b"%d" % status
        assert "Traceback" not in witness.stop()


def test_a_connection_is_kept_for_the_next_request(folder: Path) -> None:
    with running(folder) as witness:
        connection = http.client.HTTPConnection("127.0.0.1", witness.port, timeout=60)
        connection.connect()
        opened = connection.sock
        for old, size in ((0, 1), (1, 2), (2, 2), (0, 9)):
            connection.request("POST", "/add-checkpoint", LOG.request(old, size))
            answer = connection.getresponse()
            assert answer.status == (409 if size == 9 else 200)
            answer.read()
        assert connection.sock is opened
        connection.close()


def test_more_connections_than_allowed_are_closed_and_the_others_served(folder: Path) -> None:
    with running(folder) as witness:
        idle = [
            socket.create_connection(("127.0.0.1", witness.port), timeout=60) for _ in range(witnessing.CONNECTIONS_MAX)
        ]
        one_too_many = socket.create_connection(("127.0.0.1", witness.port), timeout=60)
        assert one_too_many.recv(1) == b""
        idle[7].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle[7].recv(12) == b"HTTP/1.1 200"
        assert "stopped" in witness.stop()  # at once, though connections are open
        assert witness.process.returncode == 0
        for each in (*idle, one_too_many):
            each.close()


def test_of_many_requests_at_once_exactly_one_history_is_cosigned(folder: Path) -> None:
    logs = [LOG.forked(fork) for fork in (1, 2, 40, 40)] * 4
    with running(folder) as one, running(folder) as two:
        assert one.post(LOG.request(0, 1))[0] == 200
        start = Barrier(len(logs))

        def race(number: int) -> tuple[int, str, bytes]:
            start.wait()
            return (one, two)[number % 2].post(logs[number].request(1, 9))

        with ThreadPoolExecutor(len(logs)) as pool:
            answers = list(pool.map(race, range(len(logs))))
        assert sorted(answer[0] for answer in answers) == [200] + [409] * 15
        winner = logs[[answer[0] for answer in answers].index(200)]
        assert is_cosigned(folder, winner.note(9), next(answer for answer in answers if answer[0] == 200))
        assert {answer[2] for answer in answers if answer[0] == 409} == {b"9\n"}
        # Whoever lost the race with the same history asks again, and is cosigned too; nobody else is.
        for log in logs[:4]:
            assert two.post(log.request(9, 9))[0] == (200 if log.leaves[:9] == winner.leaves[:9] else 409)
    assert len(FileStore(folder).kept()) == 2


# Killed, stopped, damaged


@pytest.mark.fault
def test_a_killed_witness_remembers_every_cosignature_that_left(folder: Path) -> None:
    """SIGKILL in the middle of requests, three times; the log grows on, and a fork of it is refused each time."""
    size = 0
    for round_ in range(3):
        received: list[int] = []
        with running(folder) as witness:
            asked = Thread(target=grow, args=(witness, size, received))
            asked.start()
            while len(received) < 3:
                assert asked.is_alive()
                time.sleep(0.001)
            witness.process.kill()
            asked.join()
        with running(folder) as witness:
            fork = LOG.forked(1)
            _, content_type, known = witness.post(LOG.request(0, 1))
            assert content_type == "text/x.tlog.size"
            size = int(known)
            assert size in (received[-1], received[-1] + 1)
            assert witness.post(fork.request(size, size))[0] == 409
            assert witness.post(fork.request(size, size + 1))[0] == 422
            assert witness.post(LOG.request(size, size + 1))[0] == 200
            size += 1
            assert round_ or size > 3


def grow(witness: Running, size: int, received: list[int]) -> None:
    """Submit head after head, and note which were cosigned, until nobody answers."""
    try:
        while True:
            old, size = size, max(size, min(size + 1, 30))
            assert witness.post(LOG.request(old, size))[0] == 200
            received.append(size)
    except (OSError, http.client.HTTPException):
        return


def test_a_witness_that_is_told_to_stop_answers_what_has_come_in(folder: Path) -> None:
    with running(folder) as witness, socket.create_connection(("127.0.0.1", witness.port), timeout=60) as idle:
        assert witness.post(LOG.request(0, 1))[0] == 200
        (lock,) = (folder / "heads").glob("*.lock")
        busy = http.client.HTTPConnection("127.0.0.1", witness.port, timeout=60)
        busy.request("GET", "/")
        busy.getresponse().read()
        with locked(lock):  # the witness waits for it
            busy.request("POST", "/add-checkpoint", LOG.request(1, 30))
            witness.process.terminate()
            while is_listening(witness.port):
                time.sleep(0.01)
        assert is_cosigned(folder, LOG.note(30), read(busy.getresponse()))
        assert idle.recv(1) == b""
        assert witness.process.communicate(timeout=60)[1].endswith(" stopped\n")
        busy.close()
    assert witness.process.returncode == 0


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
    except ConnectionError:  # refused, or reset while it closes
        return False
    return True


def test_a_witness_does_not_start_on_a_damaged_record(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(folder) as witness:
        assert witness.post(LOG.request(0, 5))[0] == 200
        (head,) = (path for path in (folder / "heads").iterdir() if not path.suffix)
        head.write_bytes(head.read_bytes().replace(b"\n5\n", b"\n3\n"))
        assert witness.post(LOG.request(5, 9))[0] == 500
        assert witness.request("GET", "/")[0] == 500
        assert "FAILED, nothing was cosigned" in witness.stop()
    arguments = ("witness", "--policy", str(folder.parent / "trust.policy"), "--folder", str(folder))
    assert cli.main(arguments) == 2
    assert "is damaged" in capsys.readouterr().err


# Keys and starting


def test_a_key_is_made_once_and_is_its_owners_only(tmp_path: Path, run: Callable[..., tuple[int, str]]) -> None:
    folder = tmp_path / "deep" / "witness"
    status, line = run("witness-key", "--folder", folder, "--name", WITNESS)
    assert status == 0
    assert (folder / "key").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    policy = parse_policy(f"log {LOG.vkey}\n{line}quorum {WITNESS}\n".encode())
    assert policy.witnesses[0].key == read_key(folder).public
    assert (folder / "key").read_text().startswith(f"PRIVATE+KEY+{WITNESS}+{read_key(folder).public.key_id.hex()}+")
    assert run("witness-key", "--folder", folder, "--name", WITNESS) == (0, line)
    status, why = run("witness-key", "--folder", folder, "--name", "other.test/witness")
    assert (status, "use another folder" in why) == (2, True)
    with pytest.raises(NoteError):
        make_key(tmp_path, "a name")
    assert not (tmp_path / "key").exists()


def test_a_damaged_key_is_refused(folder: Path) -> None:
    text = (folder / "key").read_text()
    for damaged in (
        "",
        text[:-9],
        text.replace("regulator", "regulatoR"),
        text.replace("PRIVATE", "PUBLIC"),
        "é+",
        text * 2,
    ):
        (folder / "key").write_text(damaged)
        with pytest.raises(WitnessError, match="damaged"):
            read_key(folder)
    (folder / "key").write_bytes(b"\xff")
    with pytest.raises(WitnessError, match="damaged"):
        read_key(folder)


def test_a_witness_that_cannot_start_says_why(folder: Path, run: Callable[..., tuple[int, str]]) -> None:
    policy = folder.parent / "trust.policy"
    start = ("witness", "--folder", folder, "--policy", policy)
    assert run("witness", "--folder", folder.parent / "none", "--policy", policy)[1].count("holds no key") == 1
    assert run(*start, "--name", "other.test/witness")[0] == 2
    assert run("witness", "--folder", folder, "--policy", folder / "none")[0] == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run(*start, "--listen", f"127.0.0.1:{taken.getsockname()[1]}")[0] == 2
    policy.write_bytes(b"quorum none\n")
    assert run(*start) == (2, "could not start: the policy names no log\n")
    policy.write_bytes(b"log x\nquorum none\n")
    assert "line 1" in run(*start)[1]
    with pytest.raises(SystemExit):
        run(*start, "--listen", "8000")


def test_another_key_does_not_go_on_with_a_record(folder: Path, run: Callable[..., tuple[int, str]]) -> None:
    with running(folder) as witness:
        assert witness.post(LOG.request(0, 5))[0] == 200
    (folder / "key").rename(folder / "key.lost")
    status, why = run("witness", "--folder", folder, "--policy", folder.parent / "trust.policy", "--name", WITNESS)
    assert (status, "was not cosigned with the key there" in why) == (2, True)


def test_a_witness_that_is_given_a_name_makes_its_own_key(folder: Path) -> None:
    with running(folder.parent / "fresh", "--name", "fresh.test/witness") as witness:
        assert b"name      fresh.test/witness\n" in witness.request("GET", "/")[2]

"""The program against running regions: what it says, and how it exits."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.verifier.logs import ORIGIN, chain, event, opening, small_log, stream
from tests.verifier.region import TOKEN, Region, serving
from verifier import cli, source
from verifier.source import CouldNotCheck, UrlSource

US = "countroom.test/us"


pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
def run_json(run: Callable[..., tuple[int, str]]) -> Callable[..., tuple[int, Any]]:
    def run_json(*arguments: str) -> tuple[int, Any]:
        status, out = run(*arguments, "--json")
        return status, json.loads(out)

    return run_json


def us_log() -> list[tuple[int, bytes, bytes]]:
    return chain([opening(US, partitions=[[128, 255]]), event(2, 1, partition=200, stream=stream(1, 200))], US)


def test_intact_logs_exit_with_0(run: Callable[..., tuple[int, str]]) -> None:
    with serving(Region({"eu": small_log(), "us": us_log()})) as region:
        status, out = run(region.url + "/")
    assert status == 0
    assert out == f"{region.url}  eu  12 entries  intact\n{region.url}  us  2 entries  intact\n"


def test_the_report_for_machines_is_one_object(run_json: Callable[..., tuple[int, Any]]) -> None:
    entries = small_log()
    with serving(Region({"eu": entries})) as region:
        status, report = run_json(region.url)
    assert status == 0
    assert report["intact"] is True
    assert report["differences"] == []
    (only,) = report["sources"]
    assert (only["url"], only["errors"]) == (region.url, [])
    assert only["logs"]["eu"]["leaf"] == entries[-1][2].hex()
    assert only["logs"]["eu"]["intact"] is True


def test_a_log_that_is_not_intact_exits_with_1_and_names_the_place(run: Callable[..., tuple[int, str]]) -> None:
    entries = small_log()
    entries[6] = (7, entries[6][1].replace(b"700", b"701"), entries[6][2])
    with serving(Region({"eu": entries, "us": us_log()})) as region:
        status, out = run(region.url)
    assert status == 1
    assert "eu  6 entries  NOT INTACT at position 7: the stored bytes hash to" in out
    assert "[leaf_mismatch]" in out
    assert "us  2 entries  intact" in out


def test_one_log_can_be_chosen(run: Callable[..., tuple[int, str]]) -> None:
    with serving(Region({"eu": small_log(), "us": us_log()}, page=1)) as region:
        assert run(region.url, "--log", "us") == (0, f"{region.url}  us  2 entries  intact\n")
        status, out = run(region.url, "--log", "asia")
    assert status == 2
    assert "it holds no log 'asia'" in out


def test_entries_that_do_not_count_are_told(run: Callable[..., tuple[int, str]]) -> None:
    with serving(Region({"eu": chain([opening(partitions=[]), event(2, 1)])})) as region:
        status, out = run(region.url)
    assert status == 0
    assert "intact (1 entry does not count" in out


def test_a_head_announced_with_another_leaf_is_not_intact(run: Callable[..., tuple[int, str]]) -> None:
    with serving(Region({"eu": small_log()}, announce={"leaf": "00" * 32})) as region:
        status, out = run(region.url)
    assert status == 1
    assert "[head_mismatch]" in out


def test_the_log_is_read_up_to_the_announced_position_only(run: Callable[..., tuple[int, str]]) -> None:
    entries = small_log()
    head = {"position": 4, "leaf": entries[3][2].hex()}  # and meanwhile more entries have come
    with serving(Region({"eu": entries}, announce=head)) as region:
        assert run(region.url) == (0, f"{region.url}  eu  4 entries  intact\n")


# Streams that break off.


@pytest.mark.parametrize("trouble", [{"break_after": 3}, {"end_after": 1}, {"busy": 4}])
def test_a_stream_that_breaks_off_is_resumed(run: Callable[..., tuple[int, str]], trouble: dict[str, int]) -> None:
    with serving(Region({"eu": small_log()}, **trouble)) as region:
        assert run(region.url) == (0, f"{region.url}  eu  12 entries  intact\n")
    assert all(request.startswith("/v1/logs") for request in region.requests)
    if "break_after" in trouble:
        assert region.asked_for_entries == [0, 3, 6, 9]


def test_a_region_that_says_when_to_ask_again_is_asked_again(run: Callable[..., tuple[int, str]]) -> None:
    with serving(Region({"eu": small_log()}, busy=4 * source.TRIES_MAX, retry_after="0")) as region:
        assert run(region.url) == (0, f"{region.url}  eu  12 entries  intact\n")


@pytest.mark.parametrize("what", [{"busy": 99}, {"status": 503}])
def test_a_region_that_asks_for_more_patience_than_there_is_could_not_be_checked(
    run: Callable[..., tuple[int, str]], what: dict[str, int]
) -> None:
    with serving(Region({"eu": small_log()}, retry_after=f"{source.PATIENCE_S + 1:.0f}", **what)) as region:
        status, out = run(region.url)
    assert status == 2
    assert "status 503" in out
    assert "intact" not in out


@pytest.mark.parametrize(
    ("trouble", "cause"),
    [
        ({"break_after": 0}, "IncompleteRead"),
        ({"end_after": 0}, "the stream ended there"),
        ({"busy": 99}, "status 503"),
        ({"announce": {"position": 13}}, "announced 13 entries of log eu, but gave 12"),
    ],
)
def test_a_stream_that_ends_too_early_could_not_be_checked(
    run: Callable[..., tuple[int, str]], trouble: dict[str, Any], cause: str
) -> None:
    with serving(Region({"eu": small_log()}, **trouble)) as region:
        status, out = run(region.url)
    assert status == 2
    assert "eu  could not check: " in out
    assert cause in out
    assert "intact" not in out
    assert len(region.requests) <= source.TRIES_MAX + 4


# Regions that cannot be read.


@pytest.mark.parametrize(
    ("trouble", "cause"),
    [
        ({"status": 401}, "the token is missing or not valid"),
        ({"status": 403}, "does not give the right"),
        ({"status": 404}, "there is nothing at this address"),
        ({"status": 302}, "it answers with status 302"),  # a redirect could carry the token away
        ({"status": 418}, "it answers with status 418"),
        ({"status": 503}, "cannot be reached: it answers with status 503"),
        ({"answer": b"<html>"}, "something else than JSON"),
        ({"answer": b"[" * 100_000}, "something else than JSON"),
        ({"answer": b"[]"}, "something else than a list of logs"),
        ({"answer": b'{"items":[{}],"next_cursor":null}'}, "something else than a list of logs"),
        ({"answer": b'{"items":[],"next_cursor":null}'}, "it holds no log"),
        ({"answer": b'{"items":[],"next_cursor":"x"}'}, "does not end"),
        ({"answer": b" " * (source.ANSWER_BYTES_MAX + 1)}, "does not end"),
        ({"announce": {"position": -1}}, "something else than a list of logs"),
        ({"announce": {"position": True}}, "something else than a list of logs"),
        ({"announce": {"leaf": "xx"}}, "something else than a list of logs"),
        ({"announce": {"origin": "countroom.test/us"}}, "something else than a list of logs"),
        ({"announce": {"log": "../eu"}}, "something else than a list of logs"),
        ({"announce": {"position": 0}}, "the log has no entry yet"),
    ],
)
def test_a_region_that_cannot_be_read_exits_with_2(
    run: Callable[..., tuple[int, str]], trouble: dict[str, Any], cause: str
) -> None:
    with serving(Region({"eu": small_log()}, **trouble)) as region:
        status, out = run(region.url)
    assert status == 2
    assert "could not check: " in out
    assert cause in out


@pytest.mark.parametrize(
    "line",
    [
        b"x",
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"position":"1","leaf":"","entry":""}',
        b'{"position":1,"leaf":"%s","entry":"AAA"}' % (b"00" * 32),
        b'{"position":1,"leaf":"%s","entry":"QUJD\\nRA=="}' % (b"00" * 32),
    ],
)
def test_what_is_no_entry_could_not_be_checked(line: bytes) -> None:
    head = source.Head("eu", ORIGIN, 1, bytes(32))
    with serving(Region({}, answer=line + b"\n")) as region, pytest.raises(CouldNotCheck, match="else than entries"):
        list(UrlSource(region.url).entries(head))


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    head = source.Head("eu", ORIGIN, 1, bytes(32))
    endless = b"x" * (3 * source.ANSWER_BYTES_MAX)
    with serving(Region({}, answer=endless)) as region, pytest.raises(CouldNotCheck, match="a line does not end"):
        list(UrlSource(region.url).entries(head))


def test_a_wrong_token_exits_with_2(run: Callable[..., tuple[int, str]]) -> None:
    with serving(Region({"eu": small_log()})) as region:
        status, out = run(region.url, "--token", "wrong")
        assert status == 2
        assert "the token is missing or not valid" in out
        assert run(region.url, "--token", "wrong\nX-More: 1")[0] == 2


def test_a_refused_connection_exits_with_2(run: Callable[..., tuple[int, str]]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        status, out = run(f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert status == 2
    assert "cannot be reached" in out
    assert "refused" in out


@pytest.mark.parametrize("url", ["file:///etc/passwd", "eu.example.com", "http://", "http://[", "ftp://a/"])
def test_what_is_no_address_exits_with_2(run: Callable[..., tuple[int, str]], url: str) -> None:
    status, out = run(url)
    assert status == 2
    assert "is not the http or https address of a region" in out


def test_an_error_does_not_hide_a_fault(run_json: Callable[..., tuple[int, Any]]) -> None:
    broken = small_log()[:-1]
    broken.pop(4)
    with serving(Region({"eu": broken})) as one, serving(Region({}, status=500)) as other:
        status, report = run_json(one.url, other.url)
    assert status == 1
    assert report["intact"] is False
    assert report["sources"][0]["logs"]["eu"]["fault"]["reason"] == "position_gap"
    assert report["sources"][1]["errors"][0]["log"] is None


def test_what_could_not_be_checked_is_neither_intact_nor_not(run_json: Callable[..., tuple[int, Any]]) -> None:
    with serving(Region({"eu": small_log()})) as one, serving(Region({}, status=500)) as other:
        status, report = run_json(one.url, other.url)
    assert status == 2
    assert report["intact"] is None
    assert report["sources"][0]["logs"]["eu"]["intact"] is True


def test_a_failure_of_the_program_is_no_finding(
    run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for failure, said in (
        (ZeroDivisionError("oops"), "the verifier itself failed"),
        (KeyboardInterrupt(), "interrupted"),
    ):

        def fail(*_: object, failure: BaseException = failure, **__: object) -> None:
            raise failure

        monkeypatch.setattr(cli, "check", fail)
        status, out = run("http://127.0.0.1:1")
        assert status == 2
        assert said in out


# Several copies.


def test_copies_that_agree_are_intact_though_one_lags(run: Callable[..., tuple[int, str]]) -> None:
    with serving(Region({"eu": small_log(40)})) as one, serving(Region({"eu": small_log(12)})) as other:
        assert run(one.url, other.url)[0] == 0


@pytest.mark.parametrize("forked_at", [2, 3, 17, 39, 40])
def test_a_rewritten_suffix_is_found_at_its_first_position(
    run_json: Callable[..., tuple[int, Any]], forked_at: int
) -> None:
    bodies = [opening(), *(event(number, number - 1) for number in range(2, 51))]
    rewritten = [*bodies]
    rewritten[forked_at - 1] = event(forked_at, forked_at - 1, data={"rewritten": True})
    with serving(Region({"eu": chain(bodies)})) as one, serving(Region({"eu": chain(rewritten[:40])})) as other:
        status, report = run_json(one.url, other.url)
        assert len(other.asked_for_entries) <= 1 + 6
    assert status == 1
    assert report["intact"] is False
    assert all(source["logs"]["eu"]["intact"] for source in report["sources"])
    (difference,) = report["differences"]
    assert difference["detail"].startswith("at this position")
    assert {name: difference[name] for name in ("log", "position", "reason", "urls")} == {
        "log": "eu",
        "position": forked_at,
        "reason": "copies_differ",
        "urls": [one.url, other.url],
    }


def test_copies_of_different_origins_differ(run: Callable[..., tuple[int, str]]) -> None:
    other_origin = "countroom.other/eu"
    forged = Region({"eu": chain([opening(other_origin)], other_origin)}, origins={"eu": other_origin})
    with serving(Region({"eu": small_log()})) as one, serving(forged) as other:
        status, out = run(one.url, other.url)
    assert status == 1
    assert "eu  NOT INTACT at position 1: the origins are" in out
    assert "[copies_differ]" in out


def test_a_leaf_that_is_only_claimed_is_not_compared(run_json: Callable[..., tuple[int, Any]]) -> None:
    tampered = small_log()
    tampered[11] = (12, tampered[11][1], bytes(32))
    with serving(Region({"eu": small_log()})) as one, serving(Region({"eu": tampered})) as other:
        status, report = run_json(one.url, other.url)
    assert status == 1
    assert report["differences"] == []
    assert [source["logs"]["eu"]["intact"] for source in report["sources"]] == [True, False]


def test_the_same_address_twice_is_read_once(run: Callable[..., tuple[int, str]]) -> None:
    with serving(Region({"eu": small_log()})) as region:
        assert run(region.url, region.url + "/") == (0, f"{region.url}  eu  12 entries  intact\n")


# As a program.


def test_the_program_runs_from_a_shell() -> None:
    with serving(Region({"eu": small_log()})) as region:
        done = subprocess.run(
            [sys.executable, "-m", "verifier.cli", region.url],
            env={**os.environ, "COUNTROOM_TOKEN": TOKEN, "PYTHONIOENCODING": "ascii"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{region.url}  eu  12 entries  intact\n", "")


def test_the_help_admits_what_cannot_be_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--help"])
    assert exit_.value.code == 0
    assert "can hide a rewritten suffix or a missing tail" in " ".join(capsys.readouterr().out.split())


def test_a_call_without_address_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([])
    assert exit_.value.code == 2


def test_progress_is_shown_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(Region({"eu": small_log()}, end_after=11)) as region:
        cli.main([region.url])
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        cli.main([region.url])
    assert f"eu: [{30 * '#'}] 12 of 12 entries" in capsys.readouterr().err

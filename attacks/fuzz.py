"""
`make fuzz`: requests that schemathesis makes of the interface's own description, by everybody who may ask and by nobody, against a
region that runs. No answer is a fault of ours, and every answer is one that the description tells.

Invariants:
    - the requests of a round follow from the seed, but for identifiers: half of them are real ones, taken from earlier answers;
    - memory is bounded: of findings of one kind only the first is kept.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import re
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import requests
import schemathesis
from cyclopts import App, Parameter
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis.errors import Unsatisfiable
from requests.adapters import HTTPAdapter
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Err, Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from attacks import site

SEED = 20_261_123
NOBODY = "nobody"
CHECKS = (
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
)
ANYWHERE = frozenset({400, 401, 405, 408, 413, 414, 429, 431})
"""Statuses that any route may answer, since what stands before all of them does: a problem document, but not told of each route."""
_STREAMS = ("/v1/dashboard/live",)
"""What never ends; its beginning is tried by `make attacks`."""
_KNOWN_MAX = 50
AS_MANY = 4
"""Roles that send one request, one after the other: to make it up costs more than to send it."""
_EXAMPLES_FEW, _EXAMPLES_MANY, _MANY = 1, 8, 10_000
"""At a time, of one operation as one role: to begin costs as much as some examples, but a short run should get round."""
_ID = re.compile(
    rb"\b(player|transaction|ticket|notice|contact|approval|operator|token|session)_[0-7][0-9a-hjkmnp-tv-z]{25}\b"
)
_TIMEOUT_S = 30
_BAR = 30


class Finding(NamedTuple):
    """`kind`: fault, violation or no answer; `what`: says it and how to send it again."""

    kind: str
    route: str
    role: str
    status: int
    what: str


class Done(NamedTuple):
    """What a worker tells now and then."""

    by_role: Counter[str]
    findings: Sequence[Finding]


class Caller:
    """One worker's: what it knows of the region, and as whom it asks."""

    def __init__(self, url: str, tokens: Mapping[str, str], place: int) -> None:
        self.url, self.tokens = url, tokens
        self.session = requests.Session()
        self.session.mount("http://", _From(place))
        self.known: dict[str, deque[str]] = {}
        self.by_role, self.findings = Counter[str](), list[Finding]()

    def remember(self, raw: bytes) -> None:
        for found in _ID.finditer(raw):
            self.known.setdefault(found[1].decode(), deque(maxlen=_KNOWN_MAX)).append(found[0].decode())

    def ask(self, case: Any, role: str, chance: random.Random) -> None:
        """Send one request, and hold its answer against the description."""
        for name in list(case.path_parameters or {}):
            there = self.known.get(name.removesuffix("_id"))
            if there and chance.random() < 0.5:
                case.path_parameters[name] = chance.choice(there)
        headers = {"Authorization": f"Bearer {self.tokens[role]}"} if role != NOBODY else {}
        self.by_role[role] += 1
        label = case.operation.label
        try:
            answer = case.call(base_url=self.url, session=self.session, headers=headers, timeout=_TIMEOUT_S)
        except requests.RequestException as error:
            self.findings.append(Finding("no answer", label, role, 0, repr(error)[:300]))
            return
        self.remember(answer.content)
        if answer.status_code in ANYWHERE and _is_problem(answer):
            return
        try:
            case.validate_response(answer, checks=CHECKS)
        except (Failure, FailureGroup) as error:
            kind = "fault" if answer.status_code >= 500 else "violation"
            self.findings.append(Finding(kind, label, role, answer.status_code, _said(error, case)))


class _From(HTTPAdapter):
    """Connections from another address of this machine for each worker, as far as it has several."""

    def __init__(self, place: int) -> None:
        self._place = place
        super().__init__()

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        if sys.platform == "linux":
            more["source_address"] = (f"127.0.{1 + self._place}.1", 0)
        super().init_poolmanager(*args, **more)


def _is_problem(answer: Any) -> bool:
    if answer.headers.get("content-type", [""])[0] != "application/problem+json":
        return False
    told = json.loads(answer.content)
    return bool(told.get("code")) and told.get("status") == answer.status_code


def _said(error: Failure | FailureGroup, case: Any) -> str:
    first = error.exceptions[0] if isinstance(error, FailureGroup) else error
    return f"{str(first)[:500]} | {case.as_curl_command()[:700]}"


def work(
    place: int, of: int, url: str, tokens: Mapping[str, str], chosen: int, examples: int, told: Queue[Done]
) -> None:
    """Rounds over every `of`th operation, for ever: each as the next AS_MANY roles, with examples of its own."""
    caller = Caller(url, tokens, place)
    loaded = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [_sound(found) for found in loaded.get_all_operations()]
    mine = [each for each in operations if each.path not in _STREAMS][place::of]
    roles = [NOBODY, *tokens]
    strategies = {each.label: each.as_strategy() for each in mine}
    wrong = {each.label: each.as_strategy(generation_mode=GenerationMode.NEGATIVE) for each in mine}
    for number in range(1_000_000_000):
        for nth, operation in enumerate(mine):
            asking = [roles[(number * AS_MANY + nth + each) % len(roles)] for each in range(AS_MANY)]
            strategy = wrong if number % 4 == 3 else strategies
            try:
                _examples(caller, strategy[operation.label], asking, examples, f"{chosen}:{number}:{operation.label}")
            except Unsatisfiable:  # nothing can be wrong in what takes nothing
                _examples(caller, strategies[operation.label], asking, examples, f"{chosen}:{number}:{operation.label}")
            told.put(Done(caller.by_role, caller.findings))
            caller.by_role, caller.findings = Counter(), []


def _sound(found: Ok[Any] | Err[Any]) -> Any:
    """An operation. Raises what is wrong with its description."""
    if isinstance(found, Err):
        raise found.err()
    return found.ok()


def _examples(caller: Caller, strategy: Any, roles: Sequence[str], count: int, name: str) -> None:
    chance = random.Random(name)

    @seed(chance.randrange(2**63))
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def one(case: Any) -> None:
        for role in roles:
            caller.ask(case, role, chance)

    one()


class Result(NamedTuple):
    requests: int
    by_role: Mapping[str, int]
    findings: Mapping[tuple[str, str, int], Finding]
    counts: Mapping[str, int]
    seconds: float
    seed: int

    def report(self) -> dict[str, object]:
        return {
            "requests": self.requests,
            "by_role": dict(sorted(self.by_role.items())),
            "server_errors": self.counts.get("fault", 0) + self.counts.get("no answer", 0),
            "schema_violations": self.counts.get("violation", 0),
            "seed": self.seed,
            "per_second": round(self.requests / self.seconds, 1),
        }


def fuzz(here: site.Site, requests_max: int, seconds_max: float, chosen: int, workers: int) -> Result:
    """Ask until there were so many requests, or so much time is over."""
    spawn = multiprocessing.get_context("spawn")
    told: Queue[Done] = spawn.Queue(1_000)
    examples = _EXAMPLES_MANY if requests_max >= _MANY else _EXAMPLES_FEW
    given_ = (workers, here.url, dict(here.tokens), chosen, examples, told)
    running = [spawn.Process(target=work, args=(place, *given_), daemon=True) for place in range(workers)]
    began = time.monotonic()
    total, by_role, counts = 0, Counter[str](), Counter[str]()
    findings: dict[tuple[str, str, int], Finding] = {}
    for each in running:
        each.start()
    try:
        while total < requests_max and time.monotonic() - began < seconds_max:
            if not all(each.is_alive() for each in running):
                raise RuntimeError("a worker has ended")
            done = told.get(timeout=120)
            total += done.by_role.total()
            by_role.update(done.by_role)
            for found in done.findings:
                counts[found.kind] += 1
                if findings.setdefault((found.kind, found.route, found.status), found) is found:
                    _tell(found)
            _progress(total, requests_max, counts, time.monotonic() - began)
    finally:
        for each in running:
            each.terminate()
            each.join()
    return Result(total, by_role, findings, counts, time.monotonic() - began, chosen)


def run(
    *,
    requests: Annotated[int, Parameter(help="How many at least; it ends a little later.")] = 2_000,
    minutes: Annotated[float, Parameter(help="Not longer than this.")] = 60.0,
    seed: Annotated[int, Parameter(help="Of all examples; another one tries others.")] = SEED,
    workers: Annotated[int, Parameter(help="How many processes ask.")] = 2,
    as_json: Annotated[bool, Parameter(name="--json", help="Print one JSON object.", negative="")] = False,
    into: Annotated[Path | None, Parameter(help="Write the object into this file too.")] = None,
) -> int:
    """Fuzz a region that is made for it. 0: no fault, and nothing that the description does not tell; 1: not so."""
    with tempfile.TemporaryDirectory(prefix="countroom-fuzz-") as folder, site.running(Path(folder)) as here:
        found = fuzz(here, requests, minutes * 60, seed, workers)
    report = found.report()
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    figures = ", ".join(
        f"{value:,} {name.replace('_', ' ')}" for name, value in report.items() if isinstance(value, int | float)
    )
    sys.stderr.write(f"{figures}\n")
    if as_json:
        sys.stdout.write(f"{json.dumps(report)}\n")
    if into is not None:
        into.write_text(json.dumps(report))
    return 1 if found.findings else 0


def _tell(found: Finding) -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    sys.stderr.write(f"{found.kind}: {found.route} as {found.role}, {found.status}: {found.what}\n")


def _progress(done: int, of: int, counts: Mapping[str, int], seconds: float) -> None:
    """One line that rewrites itself, on a terminal only."""
    if sys.stderr.isatty():
        full = min(_BAR, _BAR * done // of)
        found = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "nothing found"
        line = f"[{'#' * full:<{_BAR}}] {done:,} of {of:,}, {done / max(seconds, 0.1):.0f}/s, {found}"
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()


def main(arguments: Sequence[str]) -> int:
    parser = App(name="fuzz", version_flags=[], result_action="return_value")
    parser.default(run)
    return int(parser(list(arguments)) or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

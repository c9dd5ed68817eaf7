"""Whole regions, as `countroom up` runs them, for tests that look at the product from outside."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app import local
from app.local import Local
from devstack import PortTaken
from eventstore.postgres import acting_as
from policies.residency import PARTITIONS
from tests.asking import Answer, send
from tests.registering import key_within
from tests.stack import free_port_base
from tests.system.collector import Collector


class Client:
    """A caller of one region's API. `share`: the partitions that are the region's own from the beginning, or any if none are."""

    def __init__(self, url: str, tokens: dict[str, str], share: Sequence[int] = PARTITIONS) -> None:
        self.url = url
        self.tokens = tokens
        self.share = share
        self.keys = 0

    def get(self, path: str, *, role: str = "operator", headers: dict[str, str] | None = None) -> Answer:
        return send("GET", self.url + path, None, {"Authorization": f"Bearer {self.tokens[role]}", **(headers or {})})

    def post(
        self,
        path: str,
        body: Any,
        *,
        key: str | None = "",
        role: str = "operator",
        raw: bytes | None = None,
        **headers: str,
    ) -> Answer:
        """A command with a fresh Idempotency-Key; `key=None` sends none. `headers` are written if_match="…"."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers["Authorization"] = f"Bearer {self.tokens[role]}"
        if key == "":
            self.keys += 1
            key = f"test-{self.keys}-{time.monotonic_ns()}" if path != "/v1/players" else self.key_of_ours(role)
        if key is not None:
            headers["Idempotency-Key"] = key
        return send("POST", self.url + path, raw if raw is not None else json.dumps(body).encode(), headers)

    def surely(self, path: str, body: Any, *, seconds: float = 60, **more: Any) -> Answer:
        """
        The answer of a command that is sent, with one key, until it has been carried out as it was asked to be, or is refused.

        Where another region is needed, that may be starting, or take longer than a caller is made to wait.
        """
        self.keys += 1
        key = f"surely-{self.keys}-{time.monotonic_ns()}" if path != "/v1/players" else self.key_of_ours()
        end = time.monotonic() + seconds
        while (answer := self.post(path, body, key=key, **more)).status in {202, 503}:
            assert time.monotonic() < end, answer
            time.sleep(0.1)
        return answer

    def read(self, path: str, *, role: str = "operator", seconds: float = 60) -> Answer:
        """What is read there once it includes what it is to include (`at_least`), for which a read waits some seconds only."""
        end = time.monotonic() + seconds
        while (answer := self.get(path, role=role)).status == 503 and time.monotonic() < end:
            assert answer.problem() == (503, "not_yet")
        return answer

    def key_of_ours(self, role: str = "operator") -> str:
        """Under which a new player is this region's own, where residency says nothing of them."""
        return key_within(self.share, f"{role}:dev")

    def register(self, **more: Any) -> str:
        """A new player of this region's own."""
        answer = self.surely("/v1/players", {"country": "AT", "currency": "EUR", **more})
        assert answer.status == 201, answer
        return answer.json["player"]

    def look_up(self, **wanted: Any) -> Answer:
        """Players by e-mail, phone, name or external id."""
        return self.post("/v1/players/look-up", wanted, key=None)

    def found(self, **wanted: Any) -> list[str]:
        answer = self.look_up(**wanted)
        assert answer.status == 200, answer
        return [each["id"] for each in answer.json["items"]]

    def finds(self, *players: str, seconds: float = 60, **wanted: Any) -> None:
        """Wait until these are found, and nobody else."""
        end = time.monotonic() + seconds
        while set(found := self.found(**wanted)) != set(players):
            assert time.monotonic() < end, found
            time.sleep(0.1)

    def deposit(self, player: str, amount: int, currency: str = "EUR", **more: Any) -> Answer:
        body = {"amount": {"amount": amount, "currency": currency}, "provider": "card"}
        return self.post(f"/v1/players/{player}/deposits", body, **more)

    def eventually(
        self, path: str, holds: Callable[[Any], bool], *, role: str = "operator", seconds: float = 60
    ) -> Any:
        """The JSON at `path`, as soon as it is what the test waits for."""
        end = time.monotonic() + seconds
        while True:
            answer = self.get(path, role=role)
            if answer.status == 200 and holds(answer.json):
                return answer.json
            if time.monotonic() > end:
                raise AssertionError(f"{path} stayed {answer}")
            time.sleep(0.1)


class Deployment:
    """Two regions that run."""

    def __init__(self, running: Local) -> None:
        self.local = running
        self.clients = {
            region: Client(running.url(region), running.tokens, settings.partitions_of(region) or PARTITIONS)
            for region, settings in running.settings.items()
        }

    def heads(self, region: str) -> dict[str, int]:
        """Positions, straight from the database."""
        dsn = acting_as(self.local.settings[region].postgres, "countroom_reader")
        with psycopg.connect(dsn, autocommit=True) as connection:
            rows = connection.execute(
                "SELECT l.name, coalesce(max(e.position), 0) FROM ledger.log l LEFT JOIN ledger.entry e ON e.log = l.id"
                " GROUP BY l.name"
            )
            return dict(rows.fetchall())

    def types(self, region: str) -> Counter[str]:
        """How many entries of each type its own log has, straight from the database."""
        dsn = acting_as(self.local.settings[region].postgres, "countroom_reader")
        with psycopg.connect(dsn, autocommit=True) as connection:
            rows = connection.execute(
                "SELECT e.type, count(*) FROM ledger.entry e JOIN ledger.log l ON l.id = e.log WHERE l.name = %s GROUP BY 1",
                (region,),
            )
            return Counter(dict(rows.fetchall()))

    def caught_up(self, *, seconds: float = 100) -> dict[str, Any]:
        """Both dashboards, once every region shows every log up to its origin's head."""
        end = time.monotonic() + seconds
        while True:
            heads = {region: self.heads(region)[region] for region in self.clients}
            shown = {region: client.get("/v1/dashboard", role="viewer") for region, client in self.clients.items()}
            if all(a.status == 200 and a.json["positions"] == heads for a in shown.values()):
                return {region: answer.json for region, answer in shown.items()}
            if time.monotonic() > end:
                raise AssertionError(f"heads {heads}, shown {[a.raw[-300:] for a in shown.values()]}")
            time.sleep(0.2)


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    with Collector() as made:
        yield made
        made.shutdown()


@pytest.fixture(scope="session")
def deployment(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Shared by the tests of this folder: each makes players of its own. Traces go to the collector."""
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:  # for the processes only: other tests run while these do
            patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
            patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
            made = stack.enter_context(running(tmp_path_factory.mktemp("regions")))
        yield made


@contextmanager
def running(folder: Path, regions: Sequence[str] = ("eu", "us")) -> Iterator[Deployment]:
    with ExitStack() as stack:
        for _ in range(5):
            try:
                made = local.running(folder, list(regions), free_port_base(len(regions)))
                started = stack.enter_context(made)
            except PortTaken:  # somebody was faster
                continue
            yield Deployment(started)
            return
        raise RuntimeError("found no free ports")


@pytest.fixture
def eu(deployment: Deployment) -> Client:
    return deployment.clients["eu"]


@pytest.fixture
def us(deployment: Deployment) -> Client:
    return deployment.clients["us"]

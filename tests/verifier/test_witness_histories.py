"""Killed at any step, and asked anything in any order, a witness cosigns one history that only grows."""

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.verifier.growing import LOG, Log, heads_in, is_cosigned, make, submitting
from verifier.witness import Acceptable, Answer, FileStore, Witness, format_request

# Killed


def die_at(step: int, folder: Path, told: Connection) -> None:
    """Cosign size 5, and be killed by SIGKILL when the folder is touched for the step-th time."""
    submit = submitting(make(FileStore(folder)))
    steps = iter(range(1, step))

    def kill(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("open", "os.rename", "fcntl.flock") and next(steps, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)
    told.send_bytes(submit(LOG.request(3, 5)).body)


def test_a_witness_killed_at_any_step_signs_no_second_history(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    sizes = []
    for step in range(1, 50):
        folder = tmp_path / str(step)
        submitting(make(FileStore(folder)))(LOG.request(0, 3))
        here, there = fork.Pipe(duplex=False)
        process = fork.Process(target=die_at, args=(step, folder, there))
        process.start()
        there.close()
        process.join()
        finished = process.exitcode == 0
        assert finished or process.exitcode == -signal.SIGKILL
        assert here.poll()  # an answer, or that there will be none
        store = FileStore(folder)
        head = heads_in(store)
        assert head in ((3, LOG.root(3)), (5, LOG.root(5)))
        sizes.append(head[0])
        if finished:
            assert is_cosigned(Answer(200, here.recv_bytes()), LOG.note(5))
            assert head[0] == 5
            break
        with pytest.raises(EOFError):
            here.recv_bytes()
        # Whatever it recorded stands: of a fork it accepts neither the same size nor a larger one, and of the log it does.
        submit = submitting(make(store))
        assert submit(LOG.forked(2).request(head[0], 5)).status in (409, 422)
        assert submit(LOG.forked(2).request(head[0], 7)).status == 422
        assert submit(LOG.request(head[0], 7)).status == 200
    assert sizes == sorted(sizes)
    assert sizes[0] == 3
    assert 5 <= len(sizes) < 49
    assert sizes.count(5) >= 2  # killed behind the rename too


# Any history of requests

_WITNESS = st.integers(0, 1)


class Requests(RuleBasedStateMachine):
    """
    A log with up to four histories, submitted to two witnesses' processes on one folder in any order, with old sizes
    and proofs that are right or wrong. The law: all that was cosigned is one history that only grows.
    """

    store_type: type[FileStore] = FileStore

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.histories = [LOG, *(LOG.forked(fork) for fork in (0, 4, 11))]
        self.witnesses = [self.opened(), self.opened()]
        self.waiting: list[tuple[Log, int, Acceptable]] = []
        self.cosigned: list[tuple[Log, int]] = []

    def opened(self) -> Witness:
        return make(self.store_type(self.folder))

    def record(self, log: Log, size: int, answer: Answer) -> None:
        if answer.status == 200:
            assert is_cosigned(answer, log.note(size))
            self.cosigned.append((log, size))

    @property
    def known(self) -> int:
        return self.cosigned[-1][1] if self.cosigned else 0

    @rule(which=st.integers(0, 3), size=st.integers(0, 24), old=st.integers(0, 24), garble=st.booleans(), at=_WITNESS)
    def submit_anything(self, which: int, size: int, old: int, garble: bool, at: int) -> None:
        log = self.histories[which]
        proof = log.proof(old, size)
        body = format_request(old, [*proof[1:], bytes(32)] if garble else proof, log.note(size))
        answer = submitting(self.witnesses[at])(body)
        assert answer.status in (200, 400, 409, 422)
        self.record(log, size, answer)

    @rule(which=st.integers(0, 3), more=st.integers(0, 5), at=_WITNESS)
    def find_acceptable(self, which: int, more: int, at: int) -> None:
        """As a client does that knows the recorded size. Cosigned, or overtaken, is the head later."""
        log, size = self.histories[which], self.known + more
        outcome = self.witnesses[at].judge(log.request(self.known, min(size, 40)))
        if isinstance(outcome, Acceptable):
            self.waiting.append((log, outcome.checkpoint.size, outcome))

    @precondition(lambda self: self.waiting)
    @rule(at=_WITNESS, data=st.data())
    def cosign_what_was_found_acceptable(self, at: int, data: st.DataObject) -> None:
        log, size, acceptable = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        self.record(log, size, self.witnesses[at].cosign(acceptable))

    @rule(at=_WITNESS)
    def restart(self, at: int) -> None:
        self.witnesses[at] = self.opened()

    @invariant()
    def all_that_was_cosigned_is_one_history(self) -> None:
        for (one, size1), (two, size2) in zip(self.cosigned, self.cosigned[1:], strict=False):
            assert size1 <= size2
            assert one.leaves[:size1] == two.leaves[:size1]

    @invariant()
    def the_record_is_the_newest_head_that_was_cosigned(self) -> None:
        head = heads_in(FileStore(self.folder))
        assert head == (
            (self.cosigned[-1][1], self.cosigned[-1][0].root(self.cosigned[-1][1])) if self.cosigned else None
        )

    def teardown(self) -> None:
        shutil.rmtree(self.folder)


Requests.TestCase.settings = settings(max_examples=25, stateful_step_count=25)


class TestRequests(Requests.TestCase):
    pass


FIND_ONE = settings(
    max_examples=300, database=None, phases=[Phase.generate], report_multiple_bugs=False, derandomize=True
)


class Overwriting(FileStore):
    """Does not look what it overwrites."""

    def swap(self, origin: str, expected: bytes | None, note: bytes) -> bool:
        return super().swap(origin, self.load(origin), note)


class Forgetting(FileStore):
    """Says that it wrote, and did not."""

    def swap(self, origin: str, expected: bytes | None, note: bytes) -> bool:
        return True


@pytest.mark.parametrize("store", [Overwriting, Forgetting])
def test_a_store_that_breaks_its_contract_is_noticed(store: type[FileStore]) -> None:
    class Faulty(Requests):
        store_type = store

    with pytest.raises(AssertionError):
        run_state_machine_as_test(Faulty, settings=FIND_ONE)

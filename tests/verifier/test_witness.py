"""The protocol add-checkpoint: what a witness answers, what it records, of what it keeps evidence."""

import base64
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.verifier import notes
from tests.verifier.growing import (
    LOG,
    LOG_KEY,
    NOW_S,
    ORIGIN,
    WITNESS_KEY,
    Log,
    Submit,
    heads_in,
    is_cosigned,
    make,
    submitting,
)
from verifier.merkle import EMPTY_ROOT
from verifier.note import (
    Checkpoint,
    Kind,
    VerifierKey,
    assemble,
    cosign,
    format_checkpoint,
    parse_checkpoint,
    sign,
    verify_note,
)
from verifier.witness import (
    PROOF_HASHES_MAX,
    SIZE_CONTENT_TYPE,
    Acceptable,
    Answer,
    Evidence,
    FileStore,
    Malformed,
    RecordDamaged,
    Request,
    disagreement,
    format_request,
    parse_request,
)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path)


@pytest.fixture
def submit(store: FileStore) -> Submit:
    return submitting(make(store))


# The request


@given(old=st.integers(0, 2**63 - 1), proof=st.lists(st.binary(min_size=32, max_size=32), max_size=4), note=st.binary())
def test_a_request_is_read_as_it_was_written(old: int, proof: list[bytes], note: bytes) -> None:
    assert parse_request(format_request(old, proof, note)) == Request(old, tuple(proof), note)


def test_the_request_of_the_specification_is_read() -> None:
    body = (
        "old 20852014\n"
        "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n"
        "jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n"
        "5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n"
        "/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n"
        "\n" + notes.SOFA_NOTE
    ).encode()
    request = parse_request(body)
    assert (request.old_size, len(request.proof), request.note) == (20852014, 4, notes.SOFA_NOTE.encode())
    assert format_request(*request) == body


HASH = base64.b64encode(bytes(32))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 0\n",
        b"old 0\n" + LOG.note(1),
        b"old  0\n\n" + LOG.note(1),
        b"new 0\n\n" + LOG.note(1),
        b"old 00\n\n" + LOG.note(1),
        b"old -1\n\n" + LOG.note(1),
        b"old 9223372036854775808\n\n" + LOG.note(1),
        b"old \xd9\xa1\n\n" + LOG.note(1),
        b"old 0\r\n\r\n" + LOG.note(1),
        b"\nold 0\n\n" + LOG.note(1),
        b"old 1\n" + HASH[:-1] + b"\n\n" + LOG.note(2),
        b"old 1\n" + base64.b64encode(bytes(31)) + b"\n\n" + LOG.note(2),
        b"old 1\n" + HASH + b" \n\n" + LOG.note(2),
        b"old 1\n" + (HASH + b"\n") * (PROOF_HASHES_MAX + 1) + b"\n" + LOG.note(2),
        b"old 0\n\n" + LOG.note(1) + b"x" * (1 << 18),
    ],
)
def test_a_malformed_request_is_400(submit: Submit, body: bytes) -> None:
    with pytest.raises(Malformed):
        parse_request(body)
    assert submit(body).status == 400


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\xff\n\n",
        LOG.text(1).encode(),
        LOG.text(1).encode() + b"\n",
        LOG.note(1)[:-1],
        LOG.note(1).replace(b"\n1\n", b"\n01\n"),
        LOG.note(1) + b"no signature\n",
        f"{ORIGIN}\n1\n\n{notes.PETER_LINE}".encode(),
    ],
)
def test_a_malformed_checkpoint_is_400(submit: Submit, note: bytes) -> None:
    assert submit(b"old 0\n\n" + note).status == 400


def test_a_request_that_nobody_may_send_is_not_written() -> None:
    with pytest.raises(Malformed):
        format_request(-1, [], LOG.note(1))
    with pytest.raises(Malformed):
        format_request(1, [bytes(31)], LOG.note(2))
    with pytest.raises(Malformed):
        format_request(1, [bytes(32)] * 64, LOG.note(2))


# The answers


def test_a_log_that_grows_is_cosigned_head_after_head(submit: Submit, store: FileStore) -> None:
    old = 0
    for size in (0, 0, 1, 1, 2, 3, 7, 8, 21, 40, 40):
        answer = submit(LOG.request(old, size))
        assert is_cosigned(answer, LOG.note(size))
        assert answer.content_type.startswith("text/plain")
        assert heads_in(store) == (size, LOG.root(size))
        old = size
    assert store.kept() == []


def test_the_published_log_of_torchwoods_tests_is_cosigned(tmp_path: Path) -> None:
    log = VerifierKey(notes.RACE_ORIGIN, Kind.ED25519, notes.RACE_PUBLIC_KEY)
    for size in (3, 5):
        submit = submitting(make(FileStore(tmp_path / str(size)), log))
        first, later = (notes.RACE_NOTES[each].encode() for each in (1, size))
        proof = [base64.b64decode(line) for line in notes.RACE_PROOFS_FROM_1[size]]
        assert is_cosigned(submit(format_request(0, [], first)), first)
        assert submit(format_request(1, proof[1:], later)).status == 422
        assert is_cosigned(submit(format_request(1, proof, later)), later)


def test_an_unknown_log_is_404(submit: Submit) -> None:
    assert submit(Log(origin="countroom.test/us").request(0, 1)).status == 404


def test_a_head_that_its_log_did_not_sign_is_403(submit: Submit) -> None:
    assert submit(Log(key=WITNESS_KEY).request(0, 1)).status == 403


def test_a_head_of_one_log_signed_by_another_is_403(store: FileStore) -> None:
    us = Log(origin="countroom.test/us", key=Ed25519PrivateKey.generate())
    text = LOG.text(1)
    note = assemble(text, [sign(text, name=us.origin, key=us.key)])
    assert submitting(make(store, LOG.vkey, us.vkey))(format_request(0, [], note)).status == 403


def test_a_false_signature_of_the_log_beside_a_true_one_is_403(submit: Submit) -> None:
    assert submit(LOG.request(0, 1) + sign(LOG.text(2), name=ORIGIN, key=LOG_KEY).encode()).status == 403


def test_a_witnesss_signature_does_not_stand_for_the_logs(submit: Submit) -> None:
    note = assemble(LOG.text(1), [cosign(LOG.text(1), name=ORIGIN, key=LOG_KEY, timestamp_s=NOW_S)])
    assert submit(format_request(0, [], note)).status == 403


def test_each_of_several_keys_of_a_log_is_trusted(store: FileStore) -> None:
    """As while a log changes its key."""
    new = Log(key=Ed25519PrivateKey.from_private_bytes(bytes(32)))
    submit = submitting(make(store, LOG.vkey, new.vkey))
    assert is_cosigned(submit(LOG.request(0, 3)), LOG.note(3))
    assert is_cosigned(submit(new.request(3, 5)), new.note(5))
    both = new.note(6) + sign(LOG.text(6), name=ORIGIN, key=LOG_KEY).encode()
    assert is_cosigned(submit(format_request(5, LOG.proof(5, 6), both)), both)


def test_signatures_of_others_are_ignored_and_not_recorded(submit: Submit, store: FileStore) -> None:
    others = notes.PETER_LINE + notes.SIGSUM_WITNESS_LINE
    assert is_cosigned(submit(LOG.request(0, 1) + others.encode()), LOG.note(1))
    assert heads_in(store) == (1, LOG.root(1))


def test_an_old_size_beyond_the_new_one_is_400(submit: Submit) -> None:
    submit(LOG.request(0, 3))
    assert submit(format_request(3, [], LOG.note(2))).status == 400
    assert submit(format_request(9, [], LOG.note(2))).status == 400


@pytest.mark.parametrize(("old", "size"), [(0, 5), (4, 5), (6, 7), (0, 4), (4, 4), (0, 0), (2, 40)])
def test_another_old_size_than_the_recorded_one_is_409_with_that_one(submit: Submit, old: int, size: int) -> None:
    submit(LOG.request(0, 5))
    assert submit(LOG.request(old, size)) == Answer(409, b"5\n", SIZE_CONTENT_TYPE)


def test_before_the_first_head_the_recorded_size_is_0(submit: Submit) -> None:
    assert submit(LOG.request(1, 2)) == Answer(409, b"0\n", SIZE_CONTENT_TYPE)


def test_a_garbled_proof_is_422_and_evidence_of_nothing(submit: Submit, store: FileStore) -> None:
    submit(LOG.request(0, 5))
    proof = LOG.proof(5, 9)
    for wrong in (proof[1:], proof[:-1], [*proof, bytes(32)], [bytes(32), *proof[1:]], proof[::-1], []):
        assert submit(format_request(5, wrong, LOG.note(9))).status == 422
    assert submit(format_request(5, [bytes(32)], LOG.note(5))).status == 422
    assert (heads_in(store), store.kept()) == ((5, LOG.root(5)), [])


def test_a_first_head_with_a_proof_is_422(submit: Submit, store: FileStore) -> None:
    assert submit(format_request(0, [bytes(32)], LOG.note(1))).status == 422
    assert submit(format_request(0, [bytes(32)], LOG.note(0))).status == 422
    assert heads_in(store) is None


def test_an_empty_tree_has_only_one_root(submit: Submit, store: FileStore) -> None:
    text = format_checkpoint(ORIGIN, 0, bytes(32))
    impossible = assemble(text, [sign(text, name=ORIGIN, key=LOG_KEY)])
    assert submit(format_request(0, [], impossible)).status == 409
    assert heads_in(store) is None
    assert submit(LOG.request(0, 0)).status == 200
    assert heads_in(store) == (0, EMPTY_ROOT)


# Evidence


def told(store: FileStore) -> Evidence:
    """The only evidence there is, checked as anybody may who has the log's key."""
    (path,) = store.kept()
    read = json.loads(path.read_bytes())
    proof = tuple(map(base64.b64decode, read["proof"]))
    found = Evidence(read["origin"], read["why"], read["kept"].encode(), read["shown"].encode(), proof)
    kept, shown = (parse_checkpoint(verify_note(note, [LOG.vkey]).text) for note in (found.kept, found.shown))
    assert disagreement(kept, shown, found.proof) == found.why
    return found


@pytest.mark.parametrize("old", [0, 3, 5])
def test_another_root_for_the_same_size_is_409_and_both_notes_are_kept(
    submit: Submit, store: FileStore, old: int
) -> None:
    submit(LOG.request(0, 5))
    lie = LOG.forked(3)
    answer = submit(lie.request(old, 5))
    assert (answer.status, answer.content_type == SIZE_CONTENT_TYPE) == (409, old != 5)
    evidence = told(store)
    assert evidence.why == "two roots of the same size, 5"
    assert (evidence.kept, evidence.shown) == (store.load(ORIGIN), lie.note(5))
    assert heads_in(store) == (5, LOG.root(5))


def test_a_fork_that_grew_and_proves_itself_is_422_and_the_proof_is_evidence(submit: Submit, store: FileStore) -> None:
    submit(LOG.request(0, 5))
    assert submit(LOG.forked(3).request(5, 9)).status == 422
    assert told(store).why == "the tree of size 9 begins with another tree of size 5"


def test_a_fork_from_a_power_of_two_is_422_though_it_cannot_be_proved(submit: Submit, store: FileStore) -> None:
    submit(LOG.request(0, 4))
    assert submit(LOG.forked(3).request(4, 9)).status == 422
    assert store.kept() == []
    assert submit(LOG.forked(3).request(4, 4)).status == 409
    assert told(store).why == "two roots of the same size, 4"


def test_evidence_is_kept_once_and_stays_as_it_is(submit: Submit, store: FileStore) -> None:
    submit(LOG.request(0, 5))
    submit(LOG.forked(3).request(5, 9))
    (path,) = store.kept()
    before = path.read_bytes()
    for more in (b"", notes.PETER_LINE.encode()):
        submit(LOG.forked(3).request(5, 9) + more)
    assert store.kept() == [path]
    assert path.read_bytes() == before
    submit(LOG.forked(4).request(5, 9))
    assert len(store.kept()) == 2
    assert path.read_bytes() == before


def test_evidence_that_cannot_be_kept_is_not_passed_over(store: FileStore) -> None:
    submit = submitting(make(store))
    submit(LOG.request(0, 5))
    shutil.rmtree(store.evidence)
    with pytest.raises(OSError):
        submit(LOG.forked(3).request(5, 5))


@given(size1=st.integers(1, 40), size2=st.integers(1, 40), fork=st.integers(0, 40), data=st.data())
@settings(max_examples=200)
def test_only_what_disagrees_is_evidence(size1: int, size2: int, fork: int, data: st.DataObject) -> None:
    """For an honest log nothing is, whatever the proof; for a fork, the proof that it gives itself."""
    one, other = Checkpoint(ORIGIN, size1, LOG.root(size1)), LOG.forked(fork)
    honest = LOG.proof(size1, size2)
    garbled = data.draw(st.one_of(st.permutations(honest), st.lists(st.sampled_from([*honest, bytes(32)]), max_size=8)))
    same = Checkpoint(ORIGIN, size2, LOG.root(size2))
    assert disagreement(one, same, honest) is None
    assert disagreement(one, same, garbled) is None
    found = disagreement(one, Checkpoint(ORIGIN, size2, other.root(size2)), other.proof(size1, size2))
    shown_is_later = size1 < size2 and size1.bit_count() > 1
    assert (found is not None) == (fork < size1 and (size1 == size2 or shown_is_later))


# The record


def test_a_damaged_record_is_refused_with_advice(submit: Submit, store: FileStore) -> None:
    submit(LOG.request(0, 5))
    (path,) = (path for path in store.heads.iterdir() if not path.suffix)
    intact = path.read_bytes()
    other = FileStore(store.heads.parent / "other")
    submitting(make(other))(LOG.request(0, 1))
    foreign = submitting(make(other, Log(origin="x").vkey))(Log(origin="x").request(0, 1))
    assert foreign.status == 200
    (elsewhere,) = (each for each in other.heads.iterdir() if not each.suffix and each.name != path.name)
    for damaged in (b"", intact[:-1], intact[:100], intact.replace(b"\n5\n", b"\n4\n"), elsewhere.read_bytes()):
        path.write_bytes(damaged)
        with pytest.raises(RecordDamaged, match="Make a new key in a new folder"):
            submit(LOG.request(5, 6))
        assert path.read_bytes() == damaged
    path.write_bytes(intact)
    assert submit(LOG.request(5, 6)).status == 200


def test_the_record_of_one_log_says_nothing_of_another(store: FileStore) -> None:
    us = Log(origin="countroom.test/us")
    submit = submitting(make(store, LOG.vkey, us.vkey))
    assert submit(LOG.request(0, 5)).status == 200
    assert submit(us.request(0, 7)).status == 200
    assert submit(LOG.request(5, 6)).status == 200


def test_a_head_that_was_overtaken_is_compared_again(store: FileStore) -> None:
    """The race that tlog-witness tells of: the smaller head was found acceptable first, and is cosigned last."""
    one, two = make(store), make(FileStore(store.heads.parent))
    submitting(one)(LOG.request(0, 1))
    smaller, same, larger = (one.judge(LOG.request(1, size)) for size in (3, 5, 5))
    assert isinstance(smaller, Acceptable)
    assert isinstance(same, Acceptable)
    assert isinstance(larger, Acceptable)
    assert two.cosign(larger).status == 200
    assert one.cosign(smaller) == Answer(409, b"5\n", SIZE_CONTENT_TYPE)
    assert one.cosign(same) == Answer(409, b"5\n", SIZE_CONTENT_TYPE)
    assert heads_in(store) == (5, LOG.root(5))


def test_a_fork_that_was_overtaken_is_evidence(store: FileStore) -> None:
    one, two = make(store), make(FileStore(store.heads.parent))
    lie = one.judge(LOG.forked(0).request(0, 5))
    assert isinstance(lie, Acceptable)
    assert submitting(two)(LOG.request(0, 5)).status == 200
    assert one.cosign(lie) == Answer(409, b"5\n", SIZE_CONTENT_TYPE)
    assert told(store).why == "two roots of the same size, 5"


def test_of_many_threads_with_many_histories_one_history_is_cosigned(tmp_path: Path) -> None:
    logs = [LOG.forked(fork) for fork in (0, 1, 2, 40)] * 4
    start = Barrier(len(logs))

    def race(log: Log) -> Answer:
        submit = submitting(make(FileStore(tmp_path)))
        start.wait()
        return submit(log.request(0, 9))

    with ThreadPoolExecutor(len(logs)) as pool:
        answers = list(pool.map(race, logs))
    assert sorted(answer.status for answer in answers) == [200] + [409] * 15
    winner = next(log for log, answer in zip(logs, answers, strict=True) if answer.status == 200)
    assert heads_in(FileStore(tmp_path)) == (9, winner.root(9))
    assert len(FileStore(tmp_path).kept()) == 3

"""Trust policies: which checkpoints are believed."""

import itertools
import random
import re

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tests.verifier import notes
from verifier.note import Kind, NoteError, assemble, cosign, format_checkpoint, key_of, sign
from verifier.policy import Group, PolicyError, parse_policy

ORIGIN = "example.com/log"
ROOT = bytes(32)


def private(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))


LOG = str(key_of(ORIGIN, Kind.ED25519, private(0)))
OTHER_LOG = str(key_of("other.example.com/log", Kind.ED25519, private(99)))
W1, W2, W3, W4, W5, W6 = (str(key_of(f"witness.example/{n}", Kind.COSIGNATURE, private(n))) for n in range(1, 7))

# tlog-policy, "Example policy", with the keys filled in.
EXAMPLE = f"""\
log {LOG}

witness X1 {W1}
witness X2 {W2}
witness X3 {W3}
group X-witnesses 2 X1 X2 X3

witness Y1 {W4}
witness Y2 {W5}
witness Y3 {W6}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def checkpoint(*witnesses: int, log: int | None = 0, origin: str = ORIGIN, name: str = ORIGIN) -> bytes:
    """A checkpoint signed by these."""
    text = format_checkpoint(origin, 42, ROOT)
    lines = [] if log is None else [sign(text, name=name, key=private(log))]
    lines += (cosign(text, name=f"witness.example/{n}", key=private(n), timestamp_s=100 + n) for n in witnesses)
    return assemble(text, lines)


def is_accepted(policy: str, note: bytes) -> bool:
    try:
        parse_policy(policy.encode()).check(note)
    except NoteError:
        return False
    return True


# Reading


def test_the_example_of_the_specification_is_read() -> None:
    policy = parse_policy(EXAMPLE.encode())
    assert [(str(log.key), log.url) for log in policy.logs] == [(LOG, None)]
    assert [(witness.name, str(witness.key)) for witness in policy.witnesses] == [
        *(("X1", W1), ("X2", W2), ("X3", W3)),
        *(("Y1", W4), ("Y2", W5), ("Y3", W6)),
    ]
    assert policy.groups == (
        Group("X-witnesses", 2, ("X1", "X2", "X3")),
        Group("Y-witnesses", 1, ("Y1", "Y2", "Y3")),
        Group("X-and-Y", 2, ("X-witnesses", "Y-witnesses")),
    )
    assert policy.quorum == "X-and-Y"


# transparency-dev/formats, policy/tlog_policy_test.go, TestUnmarshal; there the last line may lack its line feed.


def test_the_least_policy_is_a_quorum() -> None:
    policy = parse_policy(b"quorum none\n")
    assert (policy.logs, policy.witnesses, policy.groups, policy.quorum) == ((), (), (), "none")


def test_blanks_and_comments_are_ignored() -> None:
    text = (
        f"\n# comment\n\t # another comment\n\twitness \t w1  {W1}   https://w1.example.com/  \n\n  quorum\tw1\n#end\n"
    )
    policy = parse_policy(text.encode())
    assert [(one.name, str(one.key), one.url) for one in policy.witnesses] == [("w1", W1, "https://w1.example.com/")]
    assert policy.quorum == "w1"


def test_addresses_may_be_left_out() -> None:
    policy = parse_policy(f"log {LOG} https://log.example.com/\nwitness w1 {W1}\nquorum w1\n".encode())
    assert (policy.logs[0].url, policy.witnesses[0].url) == ("https://log.example.com/", None)


def test_names_are_compared_octet_by_octet() -> None:
    """tlog-policy, "Character set": "K" and the Kelvin sign are two names, and a name need not be UTF-8."""
    text = f"witness K {W1}\nwitness \u212a {W2}\n".encode() + f"witness \udc80 {W3}\n".encode(errors="surrogateescape")
    policy = parse_policy(text + b"group g all K \x80\nquorum g\n")
    assert len({witness.name for witness in policy.witnesses}) == 3
    assert policy.is_quorum([policy.witnesses[0].key, policy.witnesses[2].key])
    assert not policy.is_quorum([policy.witnesses[0].key, policy.witnesses[1].key])


def test_a_blank_beyond_ascii_is_no_blank() -> None:
    text = f"witness a\u00a0b\u3000c {W1}\nquorum a\u00a0b\u3000c\n"
    assert parse_policy(text.encode()).quorum == "a\u00a0b\u3000c"


def test_words_that_mean_something_elsewhere_are_names() -> None:
    text = f"witness all {W1}\nwitness any {W2}\nwitness 2 {W3}\ngroup group 2 all any 2\nquorum group\n"
    policy = parse_policy(text.encode())
    assert policy.groups == (Group("group", 2, ("all", "any", "2")),)


def test_lines_may_stand_behind_the_quorum() -> None:
    text = f"witness w1 {W1}\nquorum w1\nlog {LOG}\nwitness w2 {W2}\ngroup g any w2\n"
    assert len(parse_policy(text.encode()).witnesses) == 2


def test_as_many_as_the_specification_recommends_are_read() -> None:
    """tlog-policy, "Implementation limits": 32 logs, witnesses and groups at least."""
    lines = [f"log {key_of(f'log/{n}', Kind.ED25519, private(1000 + n))}" for n in range(64)]
    lines += (f"witness w{n} {key_of(f'w/{n}', Kind.COSIGNATURE, private(n))}" for n in range(64))
    lines += (f"group g{n} any w{n}{f' g{n - 1}' if n else ''}" for n in range(64))
    policy = parse_policy("\n".join([*lines, "quorum g63", ""]).encode())
    assert policy.is_quorum([policy.witnesses[0].key])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        # transparency-dev/formats, policy/tlog_policy_test.go, TestUnmarshal_Errors and _DuplicateWitnessKeys.
        ("quorum none\n\x01\n", "line 2: the character 0x01 is not allowed"),
        ("quorum none\r\n", "line 1: the character 0x0d is not allowed"),
        (
            "quibble w1\nquorum none\n",
            "line 1: a line begins with log, witness, group, quorum or #, not with 'quibble'",
        ),
        (f"witness w1 {W1} https://w1.example.com/ # comment\nquorum w1\n", "line 1: the form of the line is 'witness"),
        ("log\nquorum none\n", "line 1: the form of the line is 'log <vkey> [<url>]'"),
        ("log garbage\nquorum none\n", "line 1: 'garbage' is not <name>+<key id"),
        (f"log {LOG}\nlog {LOG} https://log.example.com/\nquorum none\n", "line 2: the public key of log"),
        ("witness w1\nquorum w1\n", "line 1: the form of the line is 'witness"),
        (
            f"witness w1 {notes.PETER_VKEY}\nquorum w1\n",
            "line 1: a witness's key is of type 0x04, and this is of type 0x01",
        ),
        (f"witness none {W1}\nquorum none\n", "line 1: the name 'none' is taken"),
        (f"witness w1 {W1}\nwitness w1 {W2}\nquorum w1\n", "line 2: the name 'w1' is defined already"),
        (f"witness w1 {W1}\ngroup w1 any w1\nquorum w1\n", "line 2: the name 'w1' is defined already"),
        (f"witness w1 {W1}\ngroup g1 1\nquorum w1\n", "line 2: a group is"),
        (f"witness w1 {W1}\ngroup none any w1\nquorum none\n", "line 2: the name 'none' is taken"),
        (f"witness w1 {W1}\ngroup g1 0 w1\nquorum g1\n", "line 2: of 1 members"),
        (f"witness w1 {W1}\ngroup g1 -1 w1\nquorum g1\n", "line 2: of 1 members"),
        (f"witness w1 {W1}\ngroup g1 2 w1\nquorum g1\n", "line 2: of 1 members"),
        (f"witness w1 {W1}\ngroup g1 any w2\nquorum g1\n", "line 2: no witness or group 'w2' is defined above"),
        (f"group g1 any w1\nwitness w1 {W1}\nquorum g1\n", "line 1: no witness or group 'w1' is defined above"),
        (f"witness w1 {W1}\ngroup g1 any none w1\nquorum g1\n", "line 2: no witness or group 'none'"),
        (f"witness w1 {W1}\ngroup g1 all w1 w1\nquorum g1\n", "line 2: 'w1' is a member already"),
        (
            f"witness w1 {W1}\nwitness w2 {W2}\ngroup g1 any w1 w2\ngroup g2 any w1\nquorum g1\n",
            "line 4: 'w1' is a member already",
        ),
        (f"witness w1 {W1}\n", "a policy has a line 'quorum <name>'"),
        (f"witness w1 {W1}\nquorum w1\nquorum w1\n", "line 3: the quorum is stated a second time"),
        ("quorum unknown\n", "line 1: no witness or group 'unknown' is defined above"),
        (f"quorum w1\nwitness w1 {W1}\n", "line 1: no witness or group 'w1' is defined above"),
        ("quorum\n", "line 1: a quorum is"),
        (
            f"witness w1 {W1}\nwitness w2 {key_of('impostor.example.com', Kind.COSIGNATURE, private(1))}\nquorum w1\n",
            "line 2: the public key of witness 'w2' stands here for the second time",
        ),
        # And others.
        (f"log {W1}\nquorum none\n", "line 1: a log's key is of type 0x01, and this is of type 0x04"),
        (f"log {LOG} a b\nquorum none\n", "line 1: the form of the line is 'log"),
        (f"witness w1 {W1}\ngroup g1 01 w1\nquorum g1\n", "line 2: of 1 members"),
        (f"witness w1 {W1}\ngroup g1 1.0 w1\nquorum g1\n", "line 2: of 1 members"),
        (f"witness w1 {W1}\ngroup g1 {'9' * 5000} w1\nquorum g1\n", "line 2: of 1 members"),
        (f"witness w1 {W1}\ngroup g1 any g1\nquorum g1\n", "line 2: no witness or group 'g1' is defined above"),
        ("quorum none none\n", "line 1: a quorum is"),
        ("Quorum none\n", "not with 'Quorum'"),
        ("", "a policy has a line 'quorum <name>'"),
        ("# quorum none\n", "a policy has a line 'quorum <name>'"),
        (f"witness w1 {W1}\nquorum w", "the last line does not end in a line feed"),
        ("quorum none\x7f\n", "line 1: the character 0x7f is not allowed"),
        ("quorum none\n\x0b\n", "line 2: the character 0x0b is not allowed"),
        ("#" * (1 << 20) + "\nquorum none\n", "of at most 1048576"),
    ],
)
def test_a_malformed_policy_is_refused_with_line_and_reason(text: str, why: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(why)):
        parse_policy(text.encode())


@given(st.binary(max_size=80), st.integers(min_value=0, max_value=len(EXAMPLE)), st.integers(min_value=0, max_value=80))
def test_whatever_is_in_a_file_only_a_policy_error_comes_of_it(other: bytes, at: int, length: int) -> None:
    data = EXAMPLE.encode()
    for text in (other, data[:at] + other + data[at + length :]):
        try:
            policy = parse_policy(text)
        except PolicyError:
            continue
        assert policy.quorum == "none" or policy.quorum in {one.name for one in (*policy.witnesses, *policy.groups)}


# Quorums


@pytest.mark.parametrize("number", range(7))
def test_every_set_of_witnesses_of_the_example_is_judged(number: int) -> None:
    """At least two of the first three and one of the others, as the specification explains it."""
    for witnesses in itertools.combinations(range(1, 7), number):
        wanted = len({1, 2, 3} & set(witnesses)) >= 2 and len({4, 5, 6} & set(witnesses)) >= 1
        assert is_accepted(EXAMPLE, checkpoint(*witnesses)) is wanted


NESTED = f"""\
log {LOG}
witness w1 {W1}
witness w2 {W2}
witness w3 {W3}
group inner any w2 w3
group outer all w1 inner
quorum outer
"""


@pytest.mark.parametrize(
    ("witnesses", "accepted"),
    [((1, 2, 3), True), ((1, 3), True), ((1,), False), ((2, 3), False), ((), False)],
)
def test_groups_of_groups_are_counted(witnesses: tuple[int, ...], accepted: bool) -> None:
    """transparency-dev/formats, policy/tlog_policy_test.go, TestSatisfied."""
    assert is_accepted(NESTED, checkpoint(*witnesses)) is accepted


def test_one_witness_may_be_the_quorum_and_none_may_be_wanted() -> None:
    one = f"log {LOG}\nwitness w1 {W1}\nwitness w2 {W2}\nquorum w1\n"
    assert is_accepted(one, checkpoint(1))
    assert not is_accepted(one, checkpoint(2))
    assert is_accepted(f"log {LOG}\nquorum none\n", checkpoint())


def test_a_witness_that_signs_often_counts_once() -> None:
    text = format_checkpoint(ORIGIN, 42, ROOT)
    lines = [cosign(text, name="witness.example/1", key=private(1), timestamp_s=time) for time in (5, 9, 7)]
    note = checkpoint() + "".join(lines).encode()
    two = f"log {LOG}\nwitness w1 {W1}\nwitness w2 {W2}\ngroup g 2 w1 w2\nquorum g\n"
    assert not is_accepted(two, note)
    accepted = parse_policy(two.replace("group g 2", "group g 1").encode()).check(note)
    assert accepted.cosigned_s == {"w1": 9}


def expected(groups: list[tuple[str, int, list[str]]], quorum: str, cosigned: set[str]) -> bool:
    """Recursively, as the specification describes a group."""
    if quorum in cosigned:
        return True
    for name, threshold, members in groups:
        if name == quorum:
            return sum(expected(groups, member, cosigned) for member in members) >= threshold
    return False


@given(st.integers(min_value=0), st.sets(st.integers(min_value=1, max_value=6)))
def test_any_policy_judges_any_set_of_witnesses_as_the_definition_does(seed: int, cosigners: set[int]) -> None:
    some = random.Random(seed)
    free = [f"w{n}" for n in range(1, 7)]
    groups: list[tuple[str, int, list[str]]] = []
    while len(free) > 1:
        members = some.sample(free, some.randint(1, len(free)))
        groups.append((f"g{len(groups)}", some.randint(1, len(members)), members))
        free = [name for name in free if name not in members] + ([groups[-1][0]] if len(groups) < 6 else [])
    quorum = some.choice([*(f"w{n}" for n in range(1, 7)), *(name for name, _, _ in groups)])
    witnesses = [f"witness w{n} {vkey}" for n, vkey in enumerate((W1, W2, W3, W4, W5, W6), start=1)]
    lines = [*witnesses, *(f"group {name} {k} {' '.join(members)}" for name, k, members in groups), f"quorum {quorum}"]
    policy = parse_policy("\n".join([*lines, ""]).encode())
    keys = [policy.witnesses[n - 1].key for n in cosigners]
    assert policy.is_quorum(keys) is expected(groups, quorum, {f"w{n}" for n in cosigners})


# Checkpoints


def test_an_accepted_checkpoint_is_told_with_its_log_and_witnesses() -> None:
    accepted = parse_policy(EXAMPLE.encode()).check(checkpoint(2, 3, 6))
    assert (accepted.checkpoint.origin, accepted.checkpoint.size, accepted.checkpoint.root) == (ORIGIN, 42, ROOT)
    assert str(accepted.log) == LOG
    assert accepted.cosigned_s == {"X2": 102, "X3": 103, "Y3": 106}


def test_a_real_checkpoint_is_accepted_with_the_witnesses_that_signed_it() -> None:
    lines = [f"log {notes.ARCHE_VKEY}", *(f"witness {name} {vkey}" for name, vkey in notes.ARCHE_WITNESSES.items())]
    lines += [f"group g 3 {' '.join(notes.ARCHE_WITNESSES)}", "quorum g", ""]
    accepted = parse_policy("\n".join(lines).encode()).check(notes.ARCHE_NOTE.encode())
    assert accepted.checkpoint.size == 1432088532
    assert accepted.cosigned_s == dict.fromkeys(notes.ARCHE_WITNESSES, notes.ARCHE_COSIGNED_S)
    fewer = "".join(notes.ARCHE_NOTE.splitlines(keepends=True)[:-2]).encode()
    with pytest.raises(NoteError, match="the quorum 'g' is not reached: 'garden', 'smartit' signed the checkpoint"):
        parse_policy("\n".join(lines).encode()).check(fewer)


@pytest.mark.parametrize(
    ("policy", "note", "why"),
    [
        # transparency-dev/formats, policy/tlog_policy_test.go, TestVerify.
        (f"log {LOG}\nwitness w1 {W1}\nquorum w1\n", checkpoint(), "the quorum 'w1' is not reached: no witness signed"),
        (f"log {LOG}\nwitness w1 {W1}\nquorum w1\n", checkpoint(1, log=None), "no log of the policy signed"),
        (
            f"log {OTHER_LOG}\nwitness w1 {W1}\nquorum w1\n",
            checkpoint(1, log=99, name="other.example.com/log"),
            "no log of the policy signed the checkpoint of 'example.com/log' as its own",
        ),
        (f"witness w1 {W1}\nquorum w1\n", checkpoint(1), "no log of the policy signed"),
        # And others.
        (f"log {LOG}\nquorum none\n", checkpoint(log=7), "no known key signed"),
        (f"log {LOG}\nquorum none\n", checkpoint(origin="example.com/log2"), "no log of the policy signed"),
        ("quorum none\n", checkpoint(), "no known key signed"),
        (f"log {LOG}\nquorum none\n", b"", "a note is a text"),
        (f"log {LOG}\nquorum none\n", assemble("a\n", [sign("a\n", name=ORIGIN, key=private(0))]), "three lines"),
        (f"log {LOG}\nwitness w1 {W1}\nquorum none\n", checkpoint(1).replace(b"42", b"43"), "is false"),
    ],
)
def test_a_checkpoint_that_a_policy_does_not_want_is_refused(policy: str, note: bytes, why: str) -> None:
    with pytest.raises(NoteError, match=why):
        parse_policy(policy.encode()).check(note)


def test_any_of_the_listed_logs_suffices() -> None:
    both = f"log {OTHER_LOG}\nlog {LOG}\nwitness w1 {W1}\nquorum w1\n"
    assert is_accepted(both, checkpoint(1))
    assert is_accepted(both, checkpoint(1, log=99, origin="other.example.com/log", name="other.example.com/log"))
    assert not is_accepted(both, checkpoint(1, log=99, name="other.example.com/log"))


def test_a_region_may_be_log_and_witness_with_one_key() -> None:
    """The types keep them apart: a log's signature never counts as a witness's."""
    witness = key_of(ORIGIN, Kind.COSIGNATURE, private(0))
    policy = f"log {LOG}\nwitness w {witness}\nquorum w\n"
    assert not is_accepted(policy, checkpoint())
    text = format_checkpoint(ORIGIN, 42, ROOT)
    assert is_accepted(policy, checkpoint() + cosign(text, name=ORIGIN, key=private(0), timestamp_s=1).encode())

"""Every text that two readers could understand differently is refused."""

import json
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.verifier import reference
from verifier import ijson
from verifier.faults import Broken, Reason

REFUSED = [
    (b'{"a":"\xff"}', Reason.BODY_NOT_UTF8),
    (b'{"a":"\xc0\xaf"}', Reason.BODY_NOT_UTF8),  # a slash in too many bytes
    (b'{"a":"\xed\xa0\x80"}', Reason.BODY_NOT_UTF8),  # a surrogate
    ('{"a":1}'.encode("utf-16"), Reason.BODY_NOT_UTF8),
    (b"[" * 30_000, Reason.BODY_TOO_DEEP),
    (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", Reason.BODY_TOO_DEEP),
    (b'{"a":"' + b'\\"' * 30_000, Reason.BODY_NOT_JSON),
    (b"", Reason.BODY_NOT_JSON),
    (b"{", Reason.BODY_NOT_JSON),
    (b'{"a":1}{}', Reason.BODY_NOT_JSON),
    (b'{"a":1}\x00', Reason.BODY_NOT_JSON),
    (b'\xef\xbb\xbf{"a":1}', Reason.BODY_NOT_JSON),  # a byte order mark
    (b'{"a":01}', Reason.BODY_NOT_JSON),
    (b'{"a":+1}', Reason.BODY_NOT_JSON),
    (b'{"a":.5}', Reason.BODY_NOT_JSON),
    ('{"a":\u0661}'.encode(), Reason.BODY_NOT_JSON),  # a digit, but not of ASCII
    (b'{"a":NaN}', Reason.BODY_NOT_JSON),
    (b'{"a":-Infinity}', Reason.BODY_NOT_JSON),
    (b"{'a':1}", Reason.BODY_NOT_JSON),
    (b'{"a":1,}', Reason.BODY_NOT_JSON),
    (b'{"a":"\t"}', Reason.BODY_NOT_JSON),
    (b'{"a":"\\x41"}', Reason.BODY_NOT_JSON),
    (b'{"a":"\\u+041"}', Reason.BODY_NOT_JSON),
    (b'{\x0c"a":1}', Reason.BODY_NOT_JSON),  # a form feed is a blank to Python, not to JSON
    (b'{"a":1.0}', Reason.BODY_FLOAT),
    (b'{"a":-0.0}', Reason.BODY_FLOAT),
    (b'{"a":1e2}', Reason.BODY_FLOAT),
    (b'{"a":1E999}', Reason.BODY_FLOAT),
    (b'{"a":9007199254740992}', Reason.BODY_INTEGER_OUT_OF_RANGE),
    (b'{"a":-9007199254740992}', Reason.BODY_INTEGER_OUT_OF_RANGE),
    (b'{"a":' + b"9" * 10_000 + b"}", Reason.BODY_INTEGER_OUT_OF_RANGE),
    (b'{"a":1,"a":1}', Reason.BODY_DUPLICATE_KEY),
    (b'{"a":1,"\\u0061":1}', Reason.BODY_DUPLICATE_KEY),
    (b'{"b":[{"a" :1,"c":":","a":2}]}', Reason.BODY_DUPLICATE_KEY),
    (b'{"a":"\\ud800"}', Reason.BODY_NOT_UNICODE),
    (b'{"a":"\\udc00\\ud800"}', Reason.BODY_NOT_UNICODE),
    (b'{"\\ud800":1}', Reason.BODY_NOT_UNICODE),
    (b'{"a":"\\ufdd0"}', Reason.BODY_NOT_UNICODE),
    (b'{"a":["\xef\xbf\xbf"]}', Reason.BODY_NOT_UNICODE),
    ('{"a":"\U0010ffff"}'.encode(), Reason.BODY_NOT_UNICODE),
    (b'{"a":"\\udbff\\udffe"}', Reason.BODY_NOT_UNICODE),
    (b"[1]", Reason.BODY_NOT_OBJECT),
    (b'"a"', Reason.BODY_NOT_OBJECT),
    (b"null", Reason.BODY_NOT_OBJECT),
]
ACCEPTED = [
    b"{}",
    b' \t\r\n{ "a" : [ ] }\n',
    b'{"a":-0,"b":9007199254740991,"c":-9007199254740991}',
    b'{"a":{"b":1},"b":1}',
    b'{"a":"\\ud83d\\ude00 \\u0000 \\/ \x7f","":null}',
    '{"é":"\ufffd\U0001f600"}'.encode(),
    b'{"a":' + b"[" * 99 + b"]" * 99 + b"}",
    b'{"a":"' + b"[" * 1000 + b'"}',
]


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_a_text_that_is_not_i_json_is_refused(text: bytes, reason: Reason) -> None:
    with pytest.raises(Broken) as refusal:
        ijson.read(text)
    assert refusal.value.reason is reason
    assert refusal.value.detail.isprintable()
    assert refusal.value.detail.isascii()
    with pytest.raises(reference.Refused):
        reference.read(text)


@pytest.mark.parametrize("text", ACCEPTED)
def test_a_text_that_is_i_json_is_read(text: bytes) -> None:
    assert ijson.read(text) == reference.read(text)


def test_the_depth_that_is_accepted_does_not_depend_on_the_recursion_limit() -> None:
    deepest, too_deep = (b'{"a":' + b"[" * depth + b"]" * depth + b"}" for depth in (99, 900))
    limit = sys.getrecursionlimit()
    try:
        for changed in (limit, 10 * limit):
            sys.setrecursionlimit(changed)
            ijson.read(deepest)
            with pytest.raises(Broken, match="deeper"):
                ijson.read(too_deep)
    finally:
        sys.setrecursionlimit(limit)


FRAGMENTS = ["{", "}", "[", "]", ",", ":", '"', '"a"', '"a":', '"b":', "0", "1", "-", ".5", "e9", "9007199254740992"]
FRAGMENTS += [
    "true",
    "null",
    "NaN",
    " ",
    "\n",
    "\x0b",
    "\\",
    "\\u",
    "\\ud83d",
    "\\ude00",
    "\\uffff",
    "d800",
    "é",
    "\ufdd0",
]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map(lambda parts: ("{" + "".join(parts) + "}").encode()))
@example(b'{"a":1,"a":1}')
def test_texts_of_fragments_are_read_as_the_grammar_says(text: bytes) -> None:
    assert_read_as_the_grammar_says(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5) | st.floats(allow_nan=True),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_what_python_writes_is_read_as_the_grammar_says(value: object, ensure_ascii: bool, indent: int | None) -> None:
    text = json.dumps({"a": value}, ensure_ascii=ensure_ascii, indent=indent)
    assert_read_as_the_grammar_says(text.encode(errors="surrogatepass"))


def assert_read_as_the_grammar_says(text: bytes) -> None:
    try:
        expected = reference.read(text)
    except reference.Refused:
        with pytest.raises(Broken):
            ijson.read(text)
    else:
        assert repr(ijson.read(text)) == repr(expected)

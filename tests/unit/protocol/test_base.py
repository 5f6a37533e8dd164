"""[P-2.1] [P-2.2] How documents are read, and how a refusal is told."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support import factories
from trimtab_protocol import PROTOCOL_MAJOR, PROTOCOL_VERSION
from trimtab_protocol.base import parse_wire
from trimtab_protocol.budget import Budget
from trimtab_protocol.errors import ProtocolError
from trimtab_protocol.messages import Birth, Reported, encode, parse_message
from trimtab_protocol.reading import Reading


def test_the_version_on_the_wire_begins_with_the_major_version() -> None:
    """[P-2.3]"""
    assert PROTOCOL_VERSION.split(".")[0] == str(PROTOCOL_MAJOR)


def test_a_refusal_says_what_was_read_which_field_and_what_is_wrong_with_it() -> None:
    with pytest.raises(ProtocolError, match=r"malformed reading: value: Input should be a valid"):
        parse_wire(Reading, '{"value": "much"}', what="reading")


def test_a_refusal_names_at_most_three_fields_and_counts_the_rest() -> None:
    with pytest.raises(ProtocolError, match=r"^malformed birth: .*; .*; .* \(and 3 more\)$"):
        parse_message(Birth, "{}")


def test_a_refusal_of_a_document_that_is_no_json_says_so() -> None:
    with pytest.raises(ProtocolError, match=r"\(whole\): Invalid JSON"):
        parse_wire(Reading, b"{", what="reading")


@given(key=st.text(min_size=1, max_size=5000))
@example(key="k" * 5000)
def test_a_refusal_stays_short_whatever_the_peer_sent(key: str) -> None:
    document = {**json.loads(encode(factories.a_reported())), "models": {key * 3 + " ": 1}}
    with pytest.raises(ProtocolError) as caught:
        parse_message(Reported, json.dumps(document))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("character", ["\x1e", "\n", "\x1b", "\u2028", "\x85"])
def test_a_control_character_in_a_field_name_neither_breaks_the_line_nor_reaches_a_terminal(
    character: str,
) -> None:
    text = json.dumps({"limits": {f"p50{character}ms": 1.0}})
    with pytest.raises(ProtocolError) as caught:
        parse_wire(Budget, text, what="budget")
    assert caught.value.message.isprintable()
    assert "p50\\" in caught.value.message


def test_escaping_does_not_make_a_message_long() -> None:
    keys = {"\U000e0001" * 5000 + str(number): 1.0 for number in range(5)}
    with pytest.raises(ProtocolError) as caught:
        parse_wire(Budget, json.dumps({"limits": keys}), what="budget")
    assert len(caught.value.message) < 1000

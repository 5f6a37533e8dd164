"""[P-2.4] One tree of errors, branched by what the catcher does."""

from __future__ import annotations

import pickle

import pytest

from trimtab_protocol.errors import (
    BRANCHES,
    CODE_PATTERN,
    ErrorCode,
    ProtocolError,
    TrimtabError,
    error_from_code,
)


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_belongs_to_the_branch_that_its_first_part_names(code: ErrorCode) -> None:
    branch = BRANCHES[code.value.split(".")[0]]
    assert branch.__name__.lower() == f"{code.value.split('.')[0]}error"
    error = error_from_code(code, "what happened")
    assert type(error) is branch
    assert error.code is code
    assert error.message == str(error) == "what happened"


@pytest.mark.parametrize(("prefix", "branch"), BRANCHES.items())
def test_the_default_code_of_a_branch_is_of_that_branch(
    prefix: str, branch: type[TrimtabError]
) -> None:
    assert branch("it").code is branch.default_code
    assert branch.default_code.value.split(".")[0] == prefix


@pytest.mark.parametrize("branch", BRANCHES.values())
def test_a_catcher_of_the_root_catches_every_branch_and_no_branch_catches_another(
    branch: type[TrimtabError],
) -> None:
    assert issubclass(branch, TrimtabError)
    assert [other for other in BRANCHES.values() if issubclass(branch, other)] == [branch]


def test_every_code_looks_like_a_code_and_every_branch_is_in_the_pattern() -> None:
    assert all(CODE_PATTERN.fullmatch(code.value) for code in ErrorCode)
    assert all(CODE_PATTERN.fullmatch(f"{prefix}.new") for prefix in BRANCHES)


def test_a_code_from_a_newer_peer_keeps_its_text_and_its_branch() -> None:
    code = ErrorCode("model.melted")
    assert code.value == "model.melted"
    assert code == ErrorCode("model.melted")
    assert hash(code) == hash(ErrorCode("model.melted"))
    assert code not in list(ErrorCode)
    assert type(error_from_code(code, "it melted")) is BRANCHES["model"]
    assert pickle.loads(pickle.dumps(code)) == code


@pytest.mark.parametrize(
    "text",
    ["", "model", "model.", "other.code", ".load", "Model.Load", "model.a b", "model." + "a" * 41],
)
def test_text_that_is_no_code_of_a_known_branch_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a valid ErrorCode"):
        ErrorCode(text)


def test_what_is_not_text_is_no_code() -> None:
    with pytest.raises(ValueError, match="not a valid ErrorCode"):
        ErrorCode(7)


def test_an_error_carries_the_code_it_was_given() -> None:
    error = ProtocolError("other content", code=ErrorCode.PROTOCOL_CONFLICT)
    assert error.code is ErrorCode.PROTOCOL_CONFLICT

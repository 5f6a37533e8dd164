from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_deploy.passwords import is_password, make_password, make_verifier


@given(st.text(max_size=80), st.text(max_size=80))
def test_a_verifier_fits_its_password_and_no_other(password: str, other: str) -> None:
    verifier = make_verifier(password)
    assert is_password(password, verifier)
    assert is_password(other, verifier) is (other == password)


def test_two_verifiers_of_one_password_differ() -> None:
    assert make_verifier("x") != make_verifier("x")


def test_passwords_are_long_and_new() -> None:
    made = {make_password() for _ in range(100)}
    assert len(made) == 100
    assert min(len(text) for text in made) >= 43


@pytest.mark.parametrize(
    "verifier", ["", "plain", "$7$x$y$z", "$7$101$AAAA", "$6$101$AAAA$AAAA", "$7$101$!$!", "$" * 4]
)
def test_a_damaged_verifier_fits_nothing(verifier: str) -> None:
    assert not is_password("", verifier)

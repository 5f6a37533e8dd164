from __future__ import annotations

import logging
import os

import pytest

from trimtab_compressor.quiet import quiet


def test_what_native_code_writes_is_kept_off_the_terminal(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with quiet():
        os.write(1, b"chatter")
        os.write(2, b"noise")
    assert capfd.readouterr() == ("", "")


def test_what_was_written_before_a_failure_is_in_its_notes() -> None:
    def fail() -> None:
        os.write(2, b"because of this")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught, quiet():
        fail()
    assert "because of this" in caught.value.__notes__[0]


def test_log_levels_belong_to_the_process_and_are_put_back() -> None:
    root, torch_onnx = logging.getLogger(), logging.getLogger("torch.onnx")
    before = root.level, torch_onnx.level
    with quiet():
        assert root.level == logging.ERROR
    assert (root.level, torch_onnx.level) == before

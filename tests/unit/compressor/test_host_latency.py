"""Two files in turns: the ratio, its interval, and a real pair of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.compressor_rig import write_dense_onnx
from trimtab_compressor.host_latency import Effort, measure_latency, summarize


def test_the_ratio_is_the_middle_of_the_rounds_and_lies_in_its_interval() -> None:
    found = summarize([[(1.0, 2.0), (1.2, 2.0)], [(1.1, 2.0), (9.0, 2.0)]])
    assert found.ratio == pytest.approx(0.575)
    assert found.low <= found.ratio <= found.high
    assert found.base_p50_ms == 2.0
    assert found.p50_ms == pytest.approx(1.15)


def test_a_drift_that_strikes_both_does_not_move_the_ratio() -> None:
    drift = [(0.5 * slow, slow) for slow in (1.0, 2.0, 4.0, 8.0)]
    found = summarize([drift, drift])
    assert (found.low, found.ratio, found.high) == (0.5, 0.5, 0.5)


def test_sessions_that_differ_widen_the_interval_more_than_rounds_that_do() -> None:
    rounds = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]
    same = summarize([[(value, 1.0) for value in rounds]] * 6)
    apart = summarize([[(value, 1.0)] * 6 for value in rounds])
    assert apart.high - apart.low > 1.5 * (same.high - same.low)


def test_real_files_are_run_in_turns(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    small = write_dense_onnx(tmp_path / "s.onnx", random.normal(size=(64, 4)).astype(np.float32))
    large = write_dense_onnx(tmp_path / "l.onnx", random.normal(size=(64, 4000)).astype(np.float32))
    sample = np.ones((1, 64), np.float32)
    found = measure_latency(small, large, sample, Effort(sessions=2, rounds=3, block_s=0.002))
    assert 0 < found.low <= found.ratio <= found.high
    assert found.p50_ms > 0
    assert found.base_p50_ms > 0

"""From raw nanoseconds of one process to what its parent is told; needs numpy, in a child only."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy

from trimtab_agent.measure.jobs import PercentileRow, TimedRuns
from trimtab_agent.measure.timing import Samples
from trimtab_protocol.measurement import MIN_RUNS_FOR_PERCENTILE

REPLICATES = 100
OUTLIER_MADS = 5.0

Values = numpy.ndarray[Any, Any]


def summarize(samples: Samples, seed: int) -> TimedRuns:
    """Percentiles with replicates, spread, and how the runs went. Nothing is left out."""
    values = numpy.asarray(samples.durations_ns, numpy.float64)
    half = len(values) // 2
    median = numpy.median(values)
    mad = numpy.median(numpy.abs(values - median))
    return TimedRuns(
        runs=len(values),
        percentiles=_percentiles(values, seed),
        max_ns=int(values.max()),
        mad_ns=float(mad),
        outliers=int((values > median + OUTLIER_MADS * mad).sum()),
        first_half_median_ns=float(numpy.median(values[:half])),
        second_half_median_ns=float(numpy.median(values[half:])),
        cpu_ns_per_run=samples.cpu_ns / len(values),
        involuntary_switches=samples.involuntary_switches,
        wall_ns=samples.wall_ns,
        late=samples.late,
    )


def save_samples(samples: Samples, path: Path) -> bool:
    """Keep the raw nanoseconds as an int64 vector, in the order of the runs.

    Returns:
        Whether it could be written: a full disk must not cost the measurement.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        numpy.save(path, numpy.asarray(samples.durations_ns, numpy.int64))
    except OSError:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return False
    return True


def _percentiles(values: Values, seed: int) -> dict[int, PercentileRow]:
    """Each percentile, and replicates by resampling blocks of consecutive runs.

    Blocks keep what neighbours have in common (Kuensch 1989); their length is n^(1/3).
    """
    count = len(values)
    length = max(1, round(count ** (1 / 3)))
    generator = numpy.random.default_rng(seed)
    starts = generator.integers(0, count - length + 1, size=(REPLICATES, -(-count // length)))
    wanted = sorted(MIN_RUNS_FOR_PERCENTILE)
    points = numpy.percentile(values, wanted)
    replicates = numpy.empty((len(wanted), REPLICATES))
    for row, begins in enumerate(starts):  # one at a time: all of a fast model's would take 200 MB
        indices = (begins[:, None] + numpy.arange(length)).reshape(-1)[:count]
        replicates[:, row] = numpy.percentile(values[indices], wanted)
    return {
        percentile: PercentileRow(
            value_ns=float(points[row]), replicates_ns=tuple(replicates[row].tolist())
        )
        for row, percentile in enumerate(wanted)
    }

"""`make third-party`: models that nobody here made, through inspect, the ladder, and compare.

Not a test of accuracy: there is no labelled data for these models, so what is held against the float
model are its own answers on seeded noise or, for pictures of text, on pictures that are drawn here.
What is shown is that each command takes the file, and what it says.

    make third-party BENCH="--models ocr-direction,speech-embedding"
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np

from support.third_party import MODELS, ThirdPartyModel, fetch_model
from trimtab_compressor.runtimes.port import Kernels
from trimtab_compressor.runtimes.table import open_model
from trimtab_protocol.manifest import IoSpec

CALIBRATION, TEST = 64, 64
COMMAND_S = 1200.0


@dataclass(frozen=True)
class Said:
    """What a command came to."""

    command: str
    exit_code: int
    seconds: float
    said: str


def draw_samples(
    model: ThirdPartyModel, io: IoSpec, count: int, seed: int
) -> dict[str, np.ndarray]:
    """Smooth noise in the model's own type: neighbours are alike, as in pictures and spectra."""
    spec, random = io.inputs[0], np.random.default_rng(seed)
    rough = random.normal(0, 1, (count, *model.sample_shape)).astype(np.float32)
    for axis in range(1, rough.ndim):
        rough = (rough + np.roll(rough, 1, axis) + np.roll(rough, 2, axis)) / 3**0.5
    if spec.dtype.startswith("int"):
        return {spec.name: np.clip(rough * 40, -128, 127).astype(spec.dtype)}
    return {spec.name: rough}


def run(*words: str) -> Said:
    """One command of trimtab-compressor, as a person would give it."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "trimtab_compressor.cli", *words],
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    return Said(
        command=words[0],
        exit_code=done.returncode,
        seconds=time.monotonic() - started,
        said=(done.stdout if done.returncode == 0 else done.stderr).strip(),
    )


def try_model(name: str, folder: Path) -> list[Said]:
    """Inspect, quantize as far as the ladder must, compare what came of it with the float file."""
    model, source = MODELS[name], fetch_model(name)
    path = folder / f"{name}{source.suffix}"
    shutil.copyfile(source, path)  # under a name that says what it is
    io = open_model(path, Kernels.DEFAULT).io
    calibration, test = folder / "calibration.npz", folder / "test.npz"
    np.savez(calibration, **draw_samples(model, io, CALIBRATION, seed=1))  # type: ignore[arg-type]
    np.savez(test, **draw_samples(model, io, TEST, seed=2))  # type: ignore[arg-type]
    found = [run("inspect", str(path), "--layers", "5")]
    out = folder / "out"
    samples = ("--calibration", str(calibration), "--data", str(test))
    found.append(run("rescue", str(path), *samples, "--out", str(out), "--json"))
    made = sorted(row for row in out.rglob(f"*{path.suffix}")) if out.is_dir() else []
    if made:
        found.append(run("compare", str(path), str(made[-1]), "--data", str(test)))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Try each model, and print what was said."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", default=",".join(MODELS), help="separated by commas")
    chosen = parser.parse_args(arguments)
    results: dict[str, list[Said]] = {}
    for name in chosen.models.split(","):
        print(f"\n## {name}: {MODELS[name].what}\n")
        with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as folder:
            results[name] = try_model(name, Path(folder))
        for said in results[name]:
            print(
                f"### {said.command}: exit {said.exit_code}, {said.seconds:.1f} s\n\n{said.said}\n"
            )
    print(json.dumps({name: [row.exit_code for row in rows] for name, rows in results.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

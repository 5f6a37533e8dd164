"""Whatever a task file does wrong ends in one ConfigError that names it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trimtab_compressor.arrays import digest_file
from trimtab_compressor.task_file import load_task
from trimtab_protocol.errors import ConfigError, TransientError

GOOD = "from support.compressor_rig import a_task\nTASK = a_task()\n"


def write(folder: Path, text: str, name: str = "task.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_good_file_gives_its_task_with_the_digest_of_its_source(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    before = list(sys.path)
    task = load_task(path)
    assert task.name == "bars"
    assert task.source_sha256 == digest_file(path)
    assert sys.path == before


def test_a_task_may_import_a_module_beside_it(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "beside_the_task.py")
    path = write(tmp_path, "from beside_the_task import TASK as FOUND\nTASK = FOUND\n")
    assert load_task(path).classes == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = (1,\n", "line 1"),
        ("x = 1\n", "defines no TASK"),
        ("TASK = 3\n", "TASK in"),
        ("def f():\n    return 1 / 0\nf()\n", "line 2, raised ZeroDivisionError"),
        ("import no_such_module_anywhere\n", "ModuleNotFoundError"),
        (GOOD.replace("a_task()", "a_task(classes=2)"), "allows 0 to 1"),
    ],
)
def test_a_bad_file_is_named_with_the_remedy(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_task(write(tmp_path, text))
    assert said in caught.value.message


def test_a_path_that_is_no_python_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_task(tmp_path / "none.py")
    with pytest.raises(ConfigError, match=r"end in \.py"):
        load_task(write(tmp_path, GOOD, "task.txt"))


def test_data_that_could_not_be_fetched_stays_a_transient_error(tmp_path: Path) -> None:
    text = (
        "from trimtab_protocol.errors import TransientError\n"
        "raise TransientError('the network is down')\n"
    )
    with pytest.raises(TransientError, match="network is down"):
        load_task(write(tmp_path, text))

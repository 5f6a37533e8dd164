"""The steps of a task that work on the network: its passes, and the export."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from trimtab_compressor.agreement import TOP1_ACCURACY, top1_accuracy
from trimtab_compressor.arrays import digest_array, digest_file, digest_key
from trimtab_compressor.cache import Cache
from trimtab_compressor.checkpoint import load_checkpoint, load_ranges, save_checkpoint
from trimtab_compressor.export.table import EXPORTERS
from trimtab_compressor.judgement import NetworkJudgement
from trimtab_compressor.learned_ranges import LearnedRange
from trimtab_compressor.macs import count_macs, count_parameters
from trimtab_compressor.network import new_network
from trimtab_compressor.passes.stage import NetworkStage
from trimtab_compressor.passes.table import NETWORK_PASSES
from trimtab_compressor.passes.train import train_base
from trimtab_compressor.passes.training_loop import predict
from trimtab_compressor.passes.transfer import load_source
from trimtab_compressor.plan import Point, Step, title_of
from trimtab_compressor.recipe_book import BASE_PASSES
from trimtab_compressor.results import load_outputs, path_of, run_pass, save_outputs, write_note
from trimtab_compressor.specs.base import Need, NetworkSpec, Spec
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ConfigError, ErrorCode
from trimtab_protocol.manifest import ModelFormat

NETWORK_TOOLS = ("torch", "torch-pruning")


class NetworkLine:
    """Plans network steps; a step's `make` finds the results of those before it in the cache.

    Args:
        task: What to compress.
        cache: Where results are kept.
    """

    def __init__(self, task: Task, cache: Cache) -> None:
        self._task = task
        self._cache = cache

    def points(self, specs: tuple[NetworkSpec, ...]) -> tuple[Point, ...]:
        """One point after each pass."""
        return tuple(self._point(specs[: end + 1]) for end in range(len(specs)))

    def export(self, network: Point, model_format: ModelFormat, tools: Mapping[str, str]) -> Step:
        """The network as a float file."""

        def make(path: Path) -> None:
            model, _ = load_checkpoint(self._task, path_of(self._cache, network.result))
            EXPORTERS[model_format](model, self._task.input_shape, path)

        key = digest_key({"export": network.result.key, "tools": dict(tools)})
        return Step(f"export {model_format.value}", key, f".{model_format.value}", make)

    def ranges(self, network: Point) -> tuple[LearnedRange, ...]:
        """With which its activations were trained; see passes.stage.Network."""
        return load_ranges(path_of(self._cache, network.result))

    def _point(self, specs: tuple[NetworkSpec, ...]) -> Point:
        result = self._result(specs)
        outputs = self._outputs(result)
        name = specs[-1].pass_name
        return Point(name, specs[-1], result, outputs, self._judgement(name, result, outputs))

    def _result(self, specs: tuple[NetworkSpec, ...]) -> Step:
        spec, key = specs[-1], self._key(specs)

        def make(path: Path) -> None:
            stage = self._stage(specs)
            started = time.monotonic()
            made = run_pass(spec.pass_name, lambda: NETWORK_PASSES[spec.pass_name](stage))
            write_note(self._cache, key, started, made.findings)
            save_checkpoint(made.module, made.width, path, made.ranges)

        return Step(title_of(spec), key, ".pt", make)

    def _stage(self, specs: tuple[NetworkSpec, ...]) -> NetworkStage[NetworkSpec]:
        model, width = new_network(self._task, 1.0), 1.0
        base = model
        if len(specs) > 1:
            model, width = load_checkpoint(self._task, self._checkpoint(specs[:-1]))
            base, _ = load_checkpoint(self._task, self._checkpoint(specs[:1]))
        return NetworkStage(specs[-1], self._task, model, base, width, self.train_base)

    def train_base(self, task: Task, width: float) -> nn.Module:
        """The network of this or another task, trained as that task's base is; once, then from the cache.

        Args:
            task: This one, this one with another seed, or another.
            width: 1.0 is the base itself.

        Raises:
            ConfigError: `build_model` cannot make that width.
            ModelError: Training diverged.
        """
        key = NetworkLine(task, self._cache)._key(BASE_PASSES)
        if width != 1.0:
            key = digest_key({"base": key, "width": width})

        def make(path: Path) -> None:
            started = time.monotonic()
            save_checkpoint(train_base(task, width), width, path)
            write_note(self._cache, key, started, {})

        return load_checkpoint(task, self._cache.get_or_make(key, ".pt", make))[0]

    def _checkpoint(self, specs: tuple[NetworkSpec, ...]) -> Path:
        return self._cache.path(self._key(specs), ".pt")

    def _outputs(self, network: Step) -> Step:
        """Of the network, for the whole test set."""

        def make(path: Path) -> None:
            model, _ = load_checkpoint(self._task, path_of(self._cache, network))
            save_outputs([predict(model, self._task.test.inputs).numpy()], path)

        key = digest_key({"outputs": network.key, "data": self._task.data_sha256["test"]})
        return Step("run the network on the test set", key, ".npz", make)

    def _judgement(self, name: str, network: Step, outputs: Step) -> Step:
        def make(path: Path) -> None:
            model, _ = load_checkpoint(self._task, path_of(self._cache, network))
            found = load_outputs(path_of(self._cache, outputs))[0]
            judgement = NetworkJudgement(
                metric=TOP1_ACCURACY,
                samples=len(found),
                accuracy=top1_accuracy(found, self._task.test.labels),
                parameter_count=count_parameters(model),
                macs=count_macs(model, self._task.input_shape),
            )
            path.write_text(judgement.model_dump_json())

        key = digest_key({"network": network.key, "data": self._task.evidence.test_digests()})
        return Step(f"evaluate the network after {name}", key, ".network.json", make)

    @cached_property
    def _initial(self) -> str:
        """Digest of the network that `build_model` gives, which may come from more than the task's file."""
        model = new_network(self._task, 1.0)
        kinds = [type(layer).__qualname__ for layer in model.modules()]
        tensors = {
            name: [
                list(row.shape),
                digest_array(row.reshape(-1).contiguous().view(torch.uint8).numpy()),
            ]
            for name, row in model.state_dict().items()
        }
        return digest_key({"kinds": kinds, "tensors": tensors})

    def _key(self, specs: tuple[NetworkSpec, ...]) -> str:
        task = self._task
        parts: dict[str, object] = {
            "passes": [[spec.pass_name, spec.revision, spec.parameters()] for spec in specs],
            "training": asdict(task.training),
            "source": task.source_sha256,
            "initial": self._initial,
            "data": [task.data_sha256["train"], task.data_sha256["train_labels"]],
            "ignored": list(task.ignored_layers),
            "tools": [version(name) for name in NETWORK_TOOLS],
        }
        if any({Need.VALIDATION, Need.TEST_LABELS} & spec.all_needs() for spec in specs):
            parts["validation"] = task.evidence.test_digests()
        files = [digest_named(spec, name) for spec in specs for name in spec.files()]
        if files:
            parts["files"] = files
        sources = [load_source(name) for spec in specs for name in spec.task_files()]
        if sources:
            parts["sources"] = [NetworkLine(row, self._cache)._key(BASE_PASSES) for row in sources]
        return digest_key(parts)


def digest_named(spec: Spec, name: str) -> str:
    """Digest of a file that a pass was told to read.

    Raises:
        ConfigError: `config.missing`: there is none.
    """
    path = Path(name)
    if not path.is_file():
        raise ConfigError(
            f"{spec.pass_name}: {path} does not exist; give a path as seen from {Path.cwd()}",
            code=ErrorCode.CONFIG_MISSING,
        )
    return digest_file(path)

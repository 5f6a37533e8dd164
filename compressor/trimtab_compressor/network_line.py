"""The steps of a task that work on the network: its passes, and the export."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from trimtab_compressor.agreement import TOP1_ACCURACY, top1_accuracy
from trimtab_compressor.arrays import digest_key
from trimtab_compressor.cache import Cache
from trimtab_compressor.checkpoint import load_checkpoint, save_checkpoint
from trimtab_compressor.export.table import EXPORTERS
from trimtab_compressor.judgement import NetworkJudgement
from trimtab_compressor.macs import count_macs, count_parameters
from trimtab_compressor.network import new_network
from trimtab_compressor.passes.stage import NetworkStage
from trimtab_compressor.passes.table import NETWORK_PASSES
from trimtab_compressor.passes.training_loop import predict
from trimtab_compressor.plan import Point, Step, title_of
from trimtab_compressor.results import load_outputs, path_of, run_pass, save_outputs, write_note
from trimtab_compressor.specs.base import Need, NetworkSpec
from trimtab_compressor.task import Task
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
            save_checkpoint(made.module, made.width, path)

        return Step(title_of(spec), key, ".pt", make)

    def _stage(self, specs: tuple[NetworkSpec, ...]) -> NetworkStage[NetworkSpec]:
        if len(specs) == 1:
            new = new_network(self._task, 1.0)
            return NetworkStage(spec=specs[0], task=self._task, model=new, base=new)
        model, width = load_checkpoint(self._task, self._checkpoint(specs[:-1]))
        base, _ = load_checkpoint(self._task, self._checkpoint(specs[:1]))
        return NetworkStage(spec=specs[-1], task=self._task, model=model, base=base, width=width)

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

    def _key(self, specs: tuple[NetworkSpec, ...]) -> str:
        task = self._task
        parts: dict[str, object] = {
            "passes": [[spec.pass_name, spec.revision, spec.parameters()] for spec in specs],
            "training": asdict(task.training),
            "source": task.source_sha256,
            "data": [task.data_sha256["train"], task.data_sha256["train_labels"]],
            "ignored": list(task.ignored_layers),
            "tools": [version(name) for name in NETWORK_TOOLS],
        }
        if any({Need.VALIDATION, Need.TEST_LABELS} & spec.needs for spec in specs):
            parts["validation"] = task.evidence.test_digests()
        return digest_key(parts)

"""The trace of ONNX Runtime: texts as its versions write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trimtab_agent.profile.onnx_trace import parse_trace
from trimtab_protocol.errors import ModelError

NEW = """[
{"cat" : "Session","pid" :25088,"tid" :25088,"dur" :6891,"ts" :1108,"ph" : "X","name" :"session_initialization","args" : {}},
{"cat": "Node","pid":25088,"tid":25088,"dur":593,"ts":8979,"ph":"X","name":"r1_nchwc_kernel_time","args":{"node_index":"9","parameter_size":"3456","mem_in_use_peak":"299008","input_type_shape":[{"float":[1,3,96,96]},{"float":[32,3,3,3]}],"op_name":"Conv","mem_bytes_requested_in_use":"299008","output_size":"294912","mem_arena_held_delta":"1048576","thread_scheduling_stats":"","mem_bytes_in_use":"299008","activation_size":"110592","provider":"CPUExecutionProvider","mem_arena_held":"1052672","mem_in_use_delta":"294912","mem_requested_in_use_delta":"294912","output_type_shape":[{"float":[1,32,48,48]}]}},
{"cat" : "Session","pid" :25088,"tid" :25088,"dur" :610,"ts" :8970,"ph" : "X","name" :"model_run","args" : {}},
{"cat": "Node","pid":25088,"tid":25088,"dur":122,"ts":9701,"ph":"X","name":"r1_nchwc_kernel_time","args":{"node_index":"9","parameter_size":"3456","op_name":"Conv","output_size":"294912","activation_size":"110592","provider":"CPUExecutionProvider"}},
{"cat" : "Session","pid" :25088,"tid" :25088,"dur" :130,"ts" :9700,"ph" : "X","name" :"model_run","args" : {}}
]
"""

OLD = """[
{"cat":"Node","pid":1,"tid":1,"dur":0,"ts":7980,"ph":"X","name":"r1_nchwc_fence_before","args":{"op_name":"Conv"}},
{"cat":"Node","pid":1,"tid":1,"dur":295,"ts":7981,"ph":"X","name":"r1_nchwc_kernel_time","args":{"thread_scheduling_stats":"","output_type_shape":[{"float":[1,32,48,48]}],"output_size":"294912","parameter_size":"3456","activation_size":"110592","node_index":"9","input_type_shape":[{"float":[1,3,96,96]},{"float":[32,3,3,3]}],"provider":"CPUExecutionProvider","op_name":"Conv"}},
{"cat":"Node","pid":1,"tid":1,"dur":0,"ts":8277,"ph":"X","name":"r1_nchwc_fence_after","args":{"op_name":"Conv"}},
{"cat":"Session","pid":1,"tid":1,"dur":301,"ts":7979,"ph":"X","name":"model_run","args":{}}
]
"""


def node(name: str, op: str, start_us: int, duration_us: int, index: int = 0) -> dict[str, Any]:
    arguments = {"node_index": str(index), "op_name": op, "provider": "CPUExecutionProvider"}
    event = {"cat": "Node", "name": f"{name}_kernel_time", "ts": start_us, "dur": duration_us}
    return {**event, "args": arguments}


def run(start_us: int, duration_us: int) -> dict[str, Any]:
    event = {"cat": "Session", "name": "model_run", "ts": start_us, "dur": duration_us}
    return {**event, "args": {}}


def test_the_warm_up_is_cut_off_by_counting_runs() -> None:
    trace = parse_trace(NEW, 1)
    assert trace.run_us == (130.0,)
    assert [row.durations_us for row in trace.operators] == [(122.0,)]
    assert parse_trace(NEW, 0).operators[0].durations_us == (593.0, 122.0)


def test_sizes_and_indices_are_numbers_although_the_trace_has_them_as_text() -> None:
    row = parse_trace(NEW, 1).operators[0]
    assert (row.name, row.op, row.node_index) == ("r1_nchwc", "Conv", 9)
    assert (row.input_bytes, row.output_bytes, row.parameter_bytes) == (110592, 294912, 3456)
    assert row.provider == "CPUExecutionProvider"


def test_fences_of_the_old_version_are_no_operators() -> None:
    trace = parse_trace(OLD, 0)
    assert [(row.name, row.durations_us) for row in trace.operators] == [("r1_nchwc", (295.0,))]


def test_nodes_inside_a_loop_are_not_counted_twice() -> None:
    events = [
        node("inner", "Add", 110, 20),
        node("loop", "Loop", 100, 50, index=1),
        node("outer", "Add", 160, 10, index=2),
        run(90, 90),
    ]
    names = [row.name for row in parse_trace(json.dumps(events), 0).operators]
    assert names == ["loop", "outer"]


def test_an_operator_without_sizes_has_none() -> None:
    trace = parse_trace(json.dumps([node("a", "Add", 110, 20), run(100, 50)]), 0)
    assert trace.operators[0].parameter_bytes is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (NEW[:-40], "is not whole"),
        ('{"cat": "Node"}', "not a list of events"),
        ("[]", "no run after 0"),
        ('[{"cat": "Session", "name": "model_run"}]', "of another form"),
        (NEW.replace('"op_name":"Conv"', '"op":"Conv"'), "of another form"),
    ],
)
def test_a_trace_of_another_form_is_refused(text: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        parse_trace(text, 0)

"""Recipes from a file: what may stand there, and one clear error for everything that may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab_compressor.cli import build_parser
from trimtab_compressor.commands.options import read_recipes
from trimtab_compressor.recipe import Recipe
from trimtab_compressor.recipe_file import read_recipe_file
from trimtab_compressor.recipes import RECIPES
from trimtab_compressor.specs.pruning import PruneChannels
from trimtab_compressor.specs.quantization import QuantizeStatic
from trimtab_compressor.specs.training import Train
from trimtab_protocol.errors import ConfigError
from trimtab_protocol.manifest import ModelFormat

ONNX, TFLITE = ModelFormat.ONNX, ModelFormat.TFLITE

GOOD = """
name = "prune40_static"
summary = "two fifths of the channels, then int8"

[[passes]]
pass = "train"

[[passes]]
pass = "prune_channels"
ratio = 0.4

[[passes]]
pass = "quantize_static"
is_range_reduced = false
[passes.onnx]
is_range_reduced = true
"""

PYTHON = """
from trimtab_compressor.recipe import Recipe
from trimtab_protocol.manifest import ModelFormat
RECIPES = [Recipe(name=name, file_passes={ModelFormat.ONNX: ()}) for name in ("one", "two")]
"""


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def read_one(folder: Path, text: str) -> Recipe:
    (recipe,) = read_recipe_file(write(folder, text))
    return recipe


def test_a_toml_file_gives_a_recipe_with_what_each_format_has_of_its_own(tmp_path: Path) -> None:
    assert read_one(tmp_path, GOOD) == Recipe(
        name="prune40_static",
        summary="two fifths of the channels, then int8",
        network_passes=(Train(), PruneChannels(ratio=0.4)),
        file_passes={
            ONNX: (QuantizeStatic(is_range_reduced=True),),
            TFLITE: (QuantizeStatic(),),
        },
    )


def test_a_pass_may_be_left_out_in_a_format_and_a_format_in_the_recipe(tmp_path: Path) -> None:
    text = GOOD + '[[passes]]\npass = "quantize_dynamic"\nformats = ["tflite"]\n'
    found = read_one(tmp_path, text)
    assert [len(found.file_passes[row]) for row in (ONNX, TFLITE)] == [1, 2]
    found = read_one(tmp_path, 'formats = ["onnx"]\n' + GOOD)
    assert list(found.file_passes) == [ONNX]


def test_a_recipe_may_be_of_passes_over_the_file_alone(tmp_path: Path) -> None:
    found = read_one(tmp_path, 'name = "q"\n[[passes]]\npass = "quantize_static"\n')
    assert found.network_passes == ()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"train"', '"trian"', "mine.toml, pass 1: unknown pass 'trian'; did you mean train"),
        ("ratio = 0.4", "ration = 0.4", "pass 2: prune_channels: unknown parameter 'ration'; did you mean 'ratio'?"),
        ("ratio = 0.4", 'ratio = "a lot"', "pass 2: prune_channels: ratio is 'a lot'; it must be a number"),
        ("ratio = 0.4", "ratio = 1.4", "pass 2: prune_channels: ratio is 1.4; it must lie between 0 and 1"),
        ("ratio = 0.4", "", "pass 2: prune_channels: parameter 'ratio' is missing; give it"),
        ("is_range_reduced = true", "is_range_reduced = 1", "pass 3: quantize_static: is_range_reduced is 1; it must be true or false"),
        ("is_range_reduced", "is_reduced", "pass 3: quantize_static: unknown parameter 'is_reduced'"),
        ('pass = "train"', "seed = 1", "pass 1: it has no name; give pass ="),
        ("ratio = 0.4", "ratio = 0.4\n[passes.onnx]\nratio = 0.5", "pass 2: prune_channels works on the network, which is the same in every format; move its parameters out of [passes.onnx]"),
        ('pass = "train"', 'pass = "quantize_dynamic"', "pass 2: prune_channels works on the network and stands after quantize_dynamic, which works on the exported file; move it before"),
        ("name = ", "naem = ", "unknown key 'naem'; did you mean 'name'?"),
        ('name = "prune40_static"', "", "name is None; it must be a text"),
        ('"prune40_static"', '"My Recipe"', "recipe name 'My Recipe' cannot name files"),
        ("summary = ", "formats = ", "formats is 'two fifths of the channels, then int8'; give a list of onnx, tflite"),
        ("summary = ", 'formats = ["tflite"]\nsummary = ', "pass 3: quantize_static has parameters for onnx, which is not among the recipe's formats"),
        ("[passes.onnx]\nis_range_reduced", "onnx", "pass 3: quantize_static: onnx must be a table of parameters"),
        ("[[passes]]", "[[pass]]", "unknown key 'pass'; did you mean 'passes'?"),
        ("ratio = 0.4", "ratio = ", "is not TOML"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_file_pass_parameter_and_remedy(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        read_one(tmp_path, GOOD.replace(old, new))
    assert said in caught.value.message
    assert "mine.toml" in caught.value.message


def test_a_pass_that_a_format_does_not_have_is_refused_unless_it_is_left_out_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QuantizeStatic, "formats", frozenset({ONNX}))
    with pytest.raises(
        ConfigError, match="quantize_static does not exist for tflite, only for onnx"
    ):
        read_one(tmp_path, 'formats = ["onnx", "tflite"]\n' + GOOD)
    assert list(read_one(tmp_path, GOOD).file_passes) == [ONNX]
    limited = GOOD.replace("[passes.onnx]", 'formats = ["onnx"]\n[passes.onnx]')
    assert read_one(tmp_path, limited).file_passes[TFLITE] == ()
    with pytest.raises(ConfigError, match="does not exist for tflite"):
        Recipe(name="r", file_passes={TFLITE: (QuantizeStatic(),)})


def test_passes_in_the_wrong_half_of_a_recipe_are_refused() -> None:
    with pytest.raises(ConfigError, match="move it to file_passes"):
        Recipe(name="r", network_passes=(QuantizeStatic(),), file_passes={ONNX: ()})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="move it to network_passes"):
        Recipe(name="r", file_passes={ONNX: (Train(),)})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="makes no format"):
        Recipe(name="r", file_passes={})


def test_a_python_file_gives_any_number_of_recipes(tmp_path: Path) -> None:
    found = read_recipe_file(write(tmp_path, PYTHON, "mine.py"))
    assert [row.name for row in found] == ["one", "two"]
    single = PYTHON.replace("RECIPES = [", "RECIPE, _ = [")
    assert [row.name for row in read_recipe_file(write(tmp_path, single, "mine.py"))] == ["one"]
    with pytest.raises(ConfigError, match="line 3, raised NameError"):
        read_recipe_file(write(tmp_path, "\n\nRECIPE = x\n", "mine.py"))
    with pytest.raises(ConfigError, match="defines neither RECIPE"):
        read_recipe_file(write(tmp_path, "RECIPES = [1]\n", "mine.py"))


def test_a_path_that_is_no_recipe_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_recipe_file(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"must be \.toml or \.py"):
        read_recipe_file(write(tmp_path, GOOD, "mine.json"))


def test_recipes_of_files_stand_beside_the_shipped_ones(tmp_path: Path) -> None:
    toml, python = write(tmp_path, GOOD), write(tmp_path, PYTHON, "mine.py")
    arguments = ["run", "task.py", "--out", "o", "--recipe-file", str(toml)]
    book, names = read_recipes(build_parser().parse_args(arguments))
    assert names == ("prune40_static",)
    assert [row.name for row in book][:-1] == list(RECIPES)
    arguments += ["--recipe-file", str(python), "--recipe", "fp32"]
    book, names = read_recipes(build_parser().parse_args(arguments))
    assert [row.recipe for row in book.choices(names, (ONNX,))] == [
        "fp32",
        "prune40_static",
        "one",
        "two",
    ]
    taken = write(tmp_path, GOOD.replace("prune40_static", "fp32"), "taken.toml")
    with pytest.raises(ConfigError, match=r"taken\.toml: two recipes are named 'fp32'"):
        read_recipes(build_parser().parse_args([*arguments, "--recipe-file", str(taken)]))

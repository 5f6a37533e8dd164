"""Read recipes from a file: TOML for one recipe, Python for any number.

    name = "prune40_static"
    formats = ["onnx", "tflite"]        # left out: all that every pass exists for

    [[passes]]
    pass = "train"

    [[passes]]
    pass = "prune_channels"
    ratio = 0.4

    [[passes]]
    pass = "quantize_static"
    formats = ["onnx", "tflite"]        # of a pass over a file: left out in the others
    [passes.onnx]
    is_range_reduced = true             # over what stands above, for this format alone

Whatever is wrong ends in one ConfigError that names the file, the pass, the parameter and the remedy.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomllib

from trimtab_compressor.python_file import run_python_file
from trimtab_compressor.recipe import Recipe
from trimtab_compressor.recipe_book import RecipeBook
from trimtab_compressor.recipes import SHIPPED
from trimtab_compressor.specs.base import FileSpec, NetworkSpec, Spec
from trimtab_compressor.specs.table import SPECS, find_spec, read_spec
from trimtab_protocol.errors import ConfigError, ErrorCode
from trimtab_protocol.manifest import ModelFormat

KEYS = ("name", "summary", "formats", "passes")
FORMAT_NAMES = tuple(row.value for row in ModelFormat)


@dataclass(frozen=True)
class _PassRow:
    """One table of `passes`.

    Args:
        where: File and number, for messages.
        kind: The spec's class.
        shared: Parameters of every format.
        by_format: What a format has of its own.
        formats: Where the pass is applied.
        is_limited: Whether the table itself says where.
    """

    where: str
    kind: type[Spec]
    shared: Mapping[str, object]
    by_format: Mapping[ModelFormat, Mapping[str, object]]
    formats: frozenset[ModelFormat]
    is_limited: bool

    def spec(self, model_format: ModelFormat | None = None) -> Spec:
        own = self.by_format.get(model_format, {}) if model_format is not None else {}
        with _named(self.where):
            return read_spec(self.kind.pass_name, {**self.shared, **own})


def read_recipe_file(path: Path) -> tuple[Recipe, ...]:
    """All recipes of a file, at least one.

    Raises:
        ConfigError: The file is missing, or something in it is wrong.
    """
    if not path.is_file():
        raise ConfigError(
            f"recipe file {path} does not exist; give the path of a .toml or .py file",
            code=ErrorCode.CONFIG_MISSING,
        )
    if path.suffix not in READERS:
        raise ConfigError(f"recipe file {path} ends in '{path.suffix}'; it must be .toml or .py")
    return READERS[path.suffix](path)


def read_book(paths: Sequence[Path]) -> tuple[RecipeBook, tuple[str, ...]]:
    """The shipped recipes with those of some files at their end, and the names of the latter.

    Raises:
        ConfigError: A file is wrong, or a name in it is taken.
    """
    book, names = SHIPPED, []
    for path in paths:
        recipes = read_recipe_file(path)
        with _named(str(path)):
            book = book.extend(recipes)
        names += [recipe.name for recipe in recipes]
    return book, tuple(names)


def _read_python(path: Path) -> tuple[Recipe, ...]:
    module = run_python_file(path, "recipes")
    found = getattr(module, "RECIPES", None) or getattr(module, "RECIPE", None)
    recipes = (found,) if isinstance(found, Recipe) else found
    if not isinstance(recipes, Sequence) or not all(isinstance(row, Recipe) for row in recipes):
        raise ConfigError(
            f"{path} defines neither RECIPE = Recipe(...) nor RECIPES as a list of them; see "
            "trimtab_compressor.recipe.Recipe"
        )
    return tuple(recipes)


def _read_toml(path: Path) -> tuple[Recipe, ...]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}; correct the file") from error
    for key in document:
        if key not in KEYS:
            raise ConfigError(f"{path}: unknown key '{key}'; {_hint(key, KEYS)}")
    rows = _read_rows(path, document)
    formats = _recipe_formats(path, document, rows)
    network_rows, file_rows = _split(rows)
    file_passes = {
        model_format: tuple(
            _file_spec(row, model_format) for row in file_rows if model_format in row.formats
        )
        for model_format in formats
    }
    with _named(str(path)):
        recipe = Recipe(
            name=_text(path, document, "name"),
            summary=_text(path, document, "summary", default=""),
            network_passes=tuple(_network_spec(row) for row in network_rows),
            file_passes=file_passes,
        )
    return (recipe,)


READERS: dict[str, Callable[[Path], tuple[Recipe, ...]]] = {
    ".toml": _read_toml,
    ".py": _read_python,
}


def _read_rows(path: Path, document: Mapping[str, Any]) -> list[_PassRow]:
    tables = document.get("passes")
    if (
        not isinstance(tables, list)
        or not tables
        or not all(isinstance(row, dict) for row in tables)
    ):
        raise ConfigError(f'{path}: there is no pass; begin each with [[passes]] and pass = "..."')
    return [_read_row(f"{path}, pass {number}", row) for number, row in enumerate(tables, 1)]


def _read_row(where: str, table: Mapping[str, object]) -> _PassRow:
    name = table.get("pass")
    if not isinstance(name, str):
        raise ConfigError(f'{where}: it has no name; give pass = "...", one of {", ".join(SPECS)}')
    with _named(where):
        kind = find_spec(name)
    own = {key: row for key, row in table.items() if key in FORMAT_NAMES}
    shared = {key: row for key, row in table.items() if key not in (*own, "pass", "formats")}
    by_format = {}
    for key, row in own.items():
        if not isinstance(row, dict):
            raise ConfigError(
                f"{where}: {name}: {key} must be a table of parameters: [passes.{key}]"
            )
        by_format[ModelFormat(key)] = row
    formats = _formats_of(where, kind, table)
    if issubclass(kind, NetworkSpec) and (by_format or "formats" in table):
        raise ConfigError(
            f"{where}: {name} works on the network, which is the same in every format; move its "
            f"parameters out of {'[passes.' + next(iter(own)) + ']' if own else 'formats'}"
        )
    return _PassRow(where, kind, shared, by_format, formats, "formats" in table)


def _formats_of(
    where: str, kind: type[Spec], table: Mapping[str, object]
) -> frozenset[ModelFormat]:
    """Where a pass is applied: where it exists, unless the table says less."""
    known = kind.formats if issubclass(kind, FileSpec) else frozenset(ModelFormat)
    if "formats" not in table:
        return known
    wanted = frozenset(_read_formats(where, table["formats"]))
    for row in wanted - known:
        raise ConfigError(
            f"{where}: {kind.pass_name} does not exist for {row.value}; leave the format out"
        )
    return wanted


def _recipe_formats(
    path: Path, document: Mapping[str, Any], rows: Sequence[_PassRow]
) -> tuple[ModelFormat, ...]:
    if "formats" in document:
        formats = _read_formats(str(path), document["formats"])
        for row in rows:
            _check_formats(row, formats)
        return formats
    known = [row.formats for row in rows if not row.is_limited]
    return tuple(row for row in ModelFormat if all(row in formats for formats in known))


def _check_formats(row: _PassRow, formats: Sequence[ModelFormat]) -> None:
    """An explicit format must be possible, and one with parameters must be wanted."""
    for model_format in formats:
        if model_format not in row.formats and not row.is_limited:
            names = " or ".join(sorted(one.value for one in row.formats))
            raise ConfigError(
                f"{row.where}: {row.kind.pass_name} does not exist for {model_format.value}, only for "
                f"{names}; take {model_format.value} out of the recipe's formats"
            )
    for model_format in row.by_format:
        if model_format not in formats:
            raise ConfigError(
                f"{row.where}: {row.kind.pass_name} has parameters for {model_format.value}, which is "
                "not among the recipe's formats; add it or take them out"
            )


def _read_formats(where: str, value: object) -> tuple[ModelFormat, ...]:
    if not isinstance(value, list) or not value or not set(map(str, value)) <= set(FORMAT_NAMES):
        raise ConfigError(
            f"{where}: formats is {value!r}; give a list of {', '.join(FORMAT_NAMES)}"
        )
    return tuple(ModelFormat(row) for row in dict.fromkeys(value))


def _split(rows: Sequence[_PassRow]) -> tuple[list[_PassRow], list[_PassRow]]:
    """Passes over the network, and those over the file, which come after them."""
    files: list[_PassRow] = []
    networks: list[_PassRow] = []
    for row in rows:
        if issubclass(row.kind, FileSpec):
            files.append(row)
        elif files:
            raise ConfigError(
                f"{row.where}: {row.kind.pass_name} works on the network and stands after "
                f"{files[-1].kind.pass_name}, which works on the exported file; move it before"
            )
        else:
            networks.append(row)
    return networks, files


def _network_spec(row: _PassRow) -> NetworkSpec:
    spec = row.spec()
    assert isinstance(spec, NetworkSpec)
    return spec


def _file_spec(row: _PassRow, model_format: ModelFormat) -> FileSpec:
    spec = row.spec(model_format)
    assert isinstance(spec, FileSpec)
    return spec


def _text(path: Path, document: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = document.get(key, default)
    if not isinstance(value, str):
        raise ConfigError(f'{path}: {key} is {value!r}; it must be a text: {key} = "..."')
    return value


def _hint(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"it may have {', '.join(known)}"


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Put where something stands before the message of a ConfigError."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message}", code=error.code) from error

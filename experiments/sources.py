"""The code that a class is made of, as a hash: what it says, whatever its comments say."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any, NamedTuple

_OURS = __name__.partition(".")[0]


def hash_code(kind: type) -> str:
    """A hash of the module that defines `kind` and of all that it imports, directly or not, of its own top-level package and of
    this one: an editor whose helper, base class or solver contract was edited is another editor. Comments, docstrings and
    layout do not count. Empty where there is no source to read."""
    own = {_OURS, kind.__module__.partition(".")[0]}
    found: dict[str, str] = {}
    todo = [kind.__module__]
    while todo:
        name = todo.pop()
        if name not in found and name.partition(".")[0] in own:
            module = read(name)
            found[name] = module.hash
            todo += module.imported
    whole = [(name, code) for name, code in sorted(found.items()) if code]
    return sha256(repr(whole).encode()).hexdigest()[:16] if whole else ""


class Module(NamedTuple):
    """A hash of what a module does ("" without source), and the modules that it imports."""

    hash: str
    imported: tuple[str, ...]


@cache
def read(name: str) -> Module:
    source = _source(name)
    if source is None:
        return Module("", ())
    tree = ast.parse(source)
    _strip(tree)
    return Module(sha256(repr(_plain(tree)).encode()).hexdigest(), tuple(_imported(tree, _package(name))))


def _source(name: str) -> str | None:
    """The source of a module, which need not be loaded; None where there is none."""
    try:
        if name in sys.modules:
            return inspect.getsource(sys.modules[name])
        spec = find_spec(name)
        return None if spec is None or spec.origin is None else Path(spec.origin).read_text(encoding="utf-8")
    except (OSError, TypeError, ValueError, ImportError):
        return None


def _package(name: str) -> str:
    """What the relative imports of a module start from."""
    spec = sys.modules[name].__spec__ if name in sys.modules else find_spec(name)
    return name.rpartition(".")[0] if spec is None else spec.parent or ""


def _strip(tree: ast.Module) -> None:
    """Leave out texts that stand for themselves: docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [one for one in node.body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]


def _plain(node: Any) -> Any:
    """A syntax tree as nested lists. Python's own ways to write one down differ from version to version, in what is empty and
    in quotes; the shards of one comparison may run under several."""
    if isinstance(node, ast.AST):
        found = [(name, _plain(value)) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return [type(node).__name__, *found]
    return [_plain(part) for part in node] if isinstance(node, list) else repr(node)


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)  # where it is a module; else it has no source

"""The code that a class is made of, as a hash: what it says, whatever its comments say."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import decode_source, find_spec, resolve_name
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

_OURS = __name__.partition(".")[0]
_VALUES = (bool, int, float, complex, str, bytes)


def hash_code(kind: type) -> str:
    """A hash of the module that defines `kind` and of all that it imports, directly or not, of its own top-level package and of
    this one: an editor whose helper, base class or solver contract was edited is another editor. Comments, docstrings and
    layout do not count. Of a class whose module has no source, as in a notebook, a hash of its own methods as Python compiled
    them. Empty where there are none of its own either."""
    own = {_OURS, kind.__module__.partition(".")[0]}
    found: dict[str, str] = {}
    todo = [base.__module__ for base in kind.__mro__]
    while todo:
        name = todo.pop()
        if name not in found and name.partition(".")[0] in own:
            module = read(name)
            found[name] = module.hash
            todo += module.imported
    whole = [(name, code) for name, code in sorted(found.items()) if code]
    bare = [found.get(base.__module__) == "" and list(_compiled(base)) for base in kind.__mro__]
    whole += [("", repr(code)) for code in bare if code]
    return sha256(repr(whole).encode()).hexdigest()[:16] if whole else ""


class Module(NamedTuple):
    """A hash of what a module does ("" without source), and the modules that it imports."""

    hash: str
    imported: tuple[str, ...]


_read: dict[str, tuple[ModuleSpec | None, Module]] = {}


def read(name: str) -> Module:
    """What a module is, loaded or not. It is read once, and again when it has been loaded again: that gives it a new spec."""
    spec: ModuleSpec | None = getattr(sys.modules.get(name), "__spec__", None)
    if name not in _read or _read[name][0] is not spec:
        _read[name] = spec, _parsed(name)
    return _read[name][1]


def _parsed(name: str) -> Module:
    source = _source(name)
    if source is None:
        return Module("", ())
    try:
        tree = ast.parse(source)
    except SyntaxError:  # for another Python; whoever imports it here has to do without
        return Module(sha256(source.encode()).hexdigest(), ())
    _strip(tree)
    return Module(sha256(repr(_plain(tree)).encode()).hexdigest(), tuple(_imported(tree, _package(name))))


def _source(name: str) -> str | None:
    """The source of a module, the same whether it is loaded or not; None where there is none."""
    with suppress(KeyError, OSError, TypeError):  # OSError for an empty file too
        return inspect.getsource(sys.modules[name])
    with suppress(OSError, SyntaxError, ValueError, ImportError):  # SyntaxError for what is no text
        spec = _spec(name)
        if spec is not None and spec.origin is not None:
            return decode_source(Path(spec.origin).read_bytes())
    return None


def _spec(name: str) -> ModuleSpec | None:
    """Where a module is. Unlike `find_spec`, without loading the packages that it is in."""
    if name in sys.modules:
        return sys.modules[name].__spec__
    above, dot, _ = name.rpartition(".")
    if not dot:
        return find_spec(name)
    package = _spec(above)
    places = None if package is None else package.submodule_search_locations
    return None if places is None else PathFinder.find_spec(name, places)


def _package(name: str) -> str:
    """What the relative imports of a module start from."""
    spec = _spec(name)
    return name.rpartition(".")[0] if spec is None else spec.parent or ""


def _compiled(kind: type) -> Iterator[tuple[str, Any]]:
    """The methods and the plain values of a class, by name."""
    for name, value in sorted(vars(kind).items()):
        method = value.fget if isinstance(value, property) else inspect.unwrap(getattr(value, "__func__", value))
        code = getattr(method, "__code__", None)
        if isinstance(code, CodeType):
            yield name, _instructions(code)
        elif isinstance(value, _VALUES) and not name.startswith("__"):
            yield name, repr(value)


def _instructions(code: CodeType) -> Any:
    """What a function does, wherever it was written."""
    values = [_instructions(one) if isinstance(one, CodeType) else _constant(one) for one in code.co_consts]
    return code.co_code.hex(), code.co_names, code.co_varnames, values


def _constant(value: Any) -> str:
    """A constant's text; that of a set in one order."""
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


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

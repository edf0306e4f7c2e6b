"""Docstrings: every example is Python, and calls what the packages define, with arguments that fit."""

import ast
import builtins
import doctest
import importlib
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_EXAMPLE = re.compile(r"(?:^|\n)Example:\n((?:    .*\n|\n)+)")
_PACKAGES = ("serve_app", "deployments")
_FILES = [path for package in _PACKAGES for path in sorted((_ROOT / package).rglob("*.py"))]

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Definition = _Function | ast.ClassDef


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _examples(path: Path) -> Iterator[ast.AST]:
    """Yield the examples of a module's docstring; those with a prompt (>>>) are run instead."""
    text = ast.get_docstring(_parsed(path)) or ""
    for found in _EXAMPLE.finditer(f"{text}\n"):
        code = textwrap.dedent(found[1])
        if not code.startswith(">>>"):
            yield compile(code, str(path), "exec", flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@cache
def _definitions() -> dict[str, list[_Definition]]:
    """Return every class and function of the packages by its name, methods too."""
    found: dict[str, list[_Definition]] = {}
    for path in _FILES:
        for node in ast.walk(_parsed(path)):
            if isinstance(node, _Definition):
                found.setdefault(node.name, []).append(node)
    return found


@cache
def _other_names() -> frozenset[str]:
    """Return the names that the packages do not define and yet use: Python's own, imported ones, methods of others."""
    names = set(dir(builtins))
    for path in _FILES:
        for node in ast.walk(_parsed(path)):
            if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(_PACKAGES):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                names.add(node.func.attr)
    return frozenset(names)


def _accepts(definition: _Definition, call: ast.Call) -> bool:
    """Return whether a function, or the constructor of a class if it defines one, takes the arguments of a call."""
    if isinstance(definition, ast.ClassDef):
        made = [node for node in definition.body if isinstance(node, _Function) and node.name == "__init__"]
        return not made or _accepts(made[0], call)
    parameters = definition.args
    names = [parameter.arg for parameter in parameters.args]
    names = names[1:] if names[:1] in (["self"], ["cls"]) else names
    required = {*names[: len(names) - len(parameters.defaults)]}
    for parameter, default in zip(parameters.kwonlyargs, parameters.kw_defaults, strict=True):
        required |= set() if default else {parameter.arg}
    given = {*names[: len(call.args)], *(keyword.arg for keyword in call.keywords)}
    takes = {*names, *(parameter.arg for parameter in parameters.kwonlyargs)}
    counts = parameters.vararg is not None or len(call.args) <= len(names)
    return counts and required <= given and (parameters.kwarg is not None or given <= takes)


def _stale(example: ast.AST) -> Iterator[str]:
    """Yield the calls of an example that would fail: of a name that nothing has, or with arguments that do not fit."""
    nodes = list(ast.walk(example))
    if any(isinstance(node, ast.ImportFrom) for node in nodes):
        return  # it shows another library
    own = {node.name for node in nodes if isinstance(node, _Definition)}
    own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for call in nodes:
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name | ast.Attribute):
            continue
        name = call.func.id if isinstance(call.func, ast.Name) else call.func.attr
        if name in own or (isinstance(call.func, ast.Name) and name in _other_names()):
            continue
        definitions = _definitions().get(name, [])
        if not (any(_accepts(each, call) for each in definitions) if definitions else name in _other_names()):
            yield ast.unparse(call)


@pytest.mark.slow
def test_examples_call_what_there_is_with_arguments_that_fit() -> None:
    stale = {
        str(path.relative_to(_ROOT)): calls
        for path in _FILES
        if (calls := [call for example in _examples(path) for call in _stale(example)])
    }
    assert stale == {}


@pytest.mark.parametrize("path", [path for path in _FILES if ">>> " in path.read_text()], ids=lambda path: path.stem)
def test_examples_with_a_prompt_give_what_they_say(path: Path) -> None:
    module = importlib.import_module(".".join(path.relative_to(_ROOT).with_suffix("").parts))
    tried = doctest.testmod(module)
    assert tried.attempted > 0
    assert tried.failed == 0

"""No handler in the package swallows a UserError that it did not mean to catch.

A UserError is a ValueError and often an OSError, so `except ValueError` around a call that may raise one would replace
a clear message by another. The test reads the syntax tree of every file and follows calls into the package: functions,
classes, methods of `self`, and methods of a variable, argument or field whose class is annotated or constructed there.
Other methods are taken to be those of other packages, and a `yield` for a call that may raise anything.
"""

import ast
import builtins
import functools
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from mi_contrast.core import errors

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mi_contrast"
USER_ERRORS = {"UserError", "FileError", "DiskError", "BrokenImageError", "unknown", "cannot_write"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class Source:
    """One file: its tree, what its names mean, and its functions and classes by qualified name."""

    def __init__(self, name: str, text: str):
        self.name, self.tree = name, ast.parse(text)
        self.meanings: dict[str, str] = {}
        self.definitions: dict[str, ast.AST] = {}
        self.constants: dict[str, ast.expr] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mi_contrast"):
                self.meanings |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        self._define(self.tree, name)
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.constants[node.targets[0].id] = node.value

    def _define(self, parent: ast.AST, prefix: str) -> None:
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
                qualified = f"{prefix}.{node.name}"
                self.definitions[qualified] = node
                self.meanings.setdefault(node.name, qualified)
                self._define(node, qualified)
            else:
                self._define(node, prefix)

    def meaning(self, call: ast.expr, scope: str) -> str | None:
        """The qualified name of what is called, or None where the file does not say."""
        if isinstance(call, ast.Name):
            return self.meanings.get(call.id)
        if isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name):
            if call.value.id in ("self", "cls"):
                return f"{scope.rpartition('.')[0]}.{call.attr}"
            known = self.types(scope).get(call.value.id) or self.meanings.get(call.value.id)
            return f"{known}.{call.attr}" if known else None
        if isinstance(call, ast.Attribute) and ast.unparse(call.value).startswith("self."):
            known = self.fields(scope.rpartition(".")[0]).get(ast.unparse(call.value).removeprefix("self."))
            return f"{known}.{call.attr}" if known else None
        return None

    @functools.cache  # noqa: B019 - a source lives as long as its test
    def types(self, scope: str) -> dict[str, str]:
        """The classes of a function's arguments and variables, as far as they are annotated or constructed in it."""
        types: dict[str, str] = {}
        function = self.definitions.get(scope)
        for node in ast.walk(function) if function else ():
            if isinstance(node, ast.arg) and isinstance(node.annotation, ast.Name):
                types[node.arg] = self.meanings.get(node.annotation.id, "")
            variable, value = None, None
            if isinstance(node, ast.Assign):
                variable, value = node.targets[0], node.value
            elif isinstance(node, ast.withitem):
                variable, value = node.optional_vars, node.context_expr
            if isinstance(variable, ast.Name) and isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
                types[variable.id] = self.meanings.get(value.func.id, "")
        return types

    def fields(self, scope: str) -> dict[str, str]:
        """The classes of a class's annotated fields."""
        body = getattr(self.definitions.get(scope), "body", [])
        fields = [node for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.annotation, ast.Name)]
        return {ast.unparse(node.target): self.meanings.get(node.annotation.id, "") for node in fields}


def read_package() -> list[Source]:
    files = [file for file in PACKAGE.rglob("*.py") if "configs" not in file.relative_to(PACKAGE).parts]
    return [Source(module_name(file), file.read_text()) for file in sorted(files)]


def walk_own(nodes: list[ast.stmt]) -> Iterator[ast.AST]:
    """Every node below, without the bodies of functions that are only defined here."""
    for node in nodes:
        yield node
        if not isinstance(node, (*FUNCTIONS, ast.Lambda)):
            yield from walk_own(list(ast.iter_child_nodes(node)))


def calls_of(source: Source, nodes: list[ast.stmt], scope: str) -> set[str]:
    calls = (node.func for node in walk_own(nodes) if isinstance(node, ast.Call))
    return {meaning for call in calls if (meaning := source.meaning(call, scope))}


def raises_here(nodes: list[ast.stmt]) -> bool:
    for node in walk_own(nodes):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in USER_ERRORS:
            return True
    return False


def raising_names(sources: list[Source]) -> set[str]:
    """The functions, methods and classes that may raise a UserError, themselves or through what they call."""
    calls: dict[str, set[str]] = {}
    raising: set[str] = set()
    for source in sources:
        for name, node in source.definitions.items():
            if isinstance(node, ast.ClassDef):
                calls[name] = {f"{name}.{made}" for made in ("__init__", "__post_init__", "__enter__", "__call__")}
                continue
            body = [child for child in node.body if not isinstance(child, FUNCTIONS)]
            calls[name] = calls_of(source, body, name)
            if raises_here(body):
                raising.add(name)
    exported = {f"{s.name}.{alias}": meaning for s in sources for alias, meaning in s.meanings.items()}
    for name, meaning in exported.items():  # what a room's __init__ passes on
        if name != meaning:
            calls.setdefault(name, set()).add(meaning)
    while more := {name for name, called in calls.items() if name not in raising and called & raising}:
        raising |= more
    return raising


def handled_classes(source: Source, handler: ast.expr | None) -> list[type[BaseException]]:
    """The exceptions that a handler names; those of other packages that are no builtins are left out."""
    if handler is None:
        return [BaseException]
    if isinstance(handler, (ast.Tuple, ast.List)):
        return [kind for part in handler.elts for kind in handled_classes(source, part)]
    if isinstance(handler, ast.Starred):
        return handled_classes(source, handler.value)
    if isinstance(handler, ast.Name) and handler.id in source.constants:
        return handled_classes(source, source.constants[handler.id])
    name = ast.unparse(handler).rpartition(".")[2]
    kind = getattr(builtins, name, None) or getattr(errors, name, None)
    return [kind] if inspect.isclass(kind) and issubclass(kind, BaseException) else []


def swallows(source: Source, node: ast.Try, scope: str, raising: set[str]) -> bool:
    """Whether a UserError from the body would end in a handler that is meant for others."""
    for handler in node.handlers:
        kinds = handled_classes(source, handler.type)
        if any(issubclass(kind, errors.UserError) for kind in kinds):
            if any(issubclass(errors.UserError, kind) for kind in kinds):
                return False  # this handler, or one above it, is for UserErrors
            continue
        if any(issubclass(errors.FileError, kind) for kind in kinds):
            last = handler.body[-1]
            if isinstance(last, ast.Raise) and last.exc is None:
                continue  # it cleans up and passes the error on
            yields = any(isinstance(inner, (ast.Yield, ast.YieldFrom)) for inner in walk_own(node.body))
            return yields or raises_here(node.body) or bool(calls_of(source, node.body, scope) & raising)
    return False


def swallowing_handlers(sources: list[Source]) -> list[str]:
    raising = raising_names(sources)
    wrong = []
    for source in sources:
        for name, definition in source.definitions.items():
            if isinstance(definition, FUNCTIONS):
                for node in walk_own(definition.body):
                    if isinstance(node, ast.Try) and swallows(source, node, name, raising):
                        wrong.append(f"{name}, line {node.lineno}")
    return wrong


def test_no_broad_handler_swallows_a_user_error():
    assert swallowing_handlers(read_package()) == []


def broad_handlers(sources: list[Source]) -> list[str]:
    """The handlers that name Exception beside one of its kinds, which says that this alone was meant."""
    return [
        f"{source.name}, line {node.lineno}"
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ExceptHandler) and node.type is not None
        if Exception in (kinds := handled_classes(source, node.type))
        and any(issubclass(kind, Exception) and kind is not Exception for kind in kinds)
    ]


def test_no_handler_names_every_exception_beside_others():
    assert broad_handlers(read_package()) == []


@pytest.mark.parametrize("kinds, count", [("(UserError, Exception)", 1), ("(UserError, OSError)", 0), ("Exception", 0)])
def test_the_guard_finds_a_handler_of_every_exception(kinds, count):
    text = f"from mi_contrast.core.errors import UserError\ntry:\n    f()\nexcept {kinds}:\n    pass\n"
    assert len(broad_handlers([Source("mi_contrast.caller", text)])) == count


HELPER = "from mi_contrast.core.errors import UserError\ndef check(x):\n    raise UserError('wrong')\n"


def handlers_of(lines: str) -> list[str]:
    caller = f"from mi_contrast.core.errors import UserError\nfrom mi_contrast.helper import check\n{lines}"
    return swallowing_handlers([Source("mi_contrast.helper", HELPER), Source("mi_contrast.caller", caller)])


@pytest.mark.parametrize(
    "lines",
    [
        "def f():\n    try:\n        raise UserError('a')\n    except ValueError:\n        pass\n",
        "def f():\n    try:\n        check(1)\n    except OSError as error:\n        raise KeyError from error\n",
        "def g():\n    check(1)\ndef f():\n    try:\n        g()\n    except (KeyError, Exception):\n        pass\n",
        "BAD = (OSError, KeyError)\ndef f():\n    try:\n        check(1)\n    except BAD:\n        pass\n",
        "BAD = (KeyError, OSError)\ndef f():\n    try:\n        check(1)\n    except (*BAD, Warning):\n        pass\n",
        "def f():\n    try:\n        yield\n    except Exception as error:\n        raise KeyError from error\n",
        "class C:\n    def g(self):\n        check(1)\n    def f(self):\n        try:\n            self.g()\n"
        "        except ValueError:\n            pass\n",
        "class C:\n    def __init__(self):\n        check(1)\ndef f():\n    try:\n        C()\n"
        "    except ValueError:\n        pass\n",
        "def f():\n    try:\n        check(1)\n    except:\n        pass\n",
        "class C:\n    def g(self):\n        check(1)\ndef f(c: C):\n    try:\n        c.g()\n"
        "    except ValueError:\n        pass\n",
        "class C:\n    def g(self):\n        check(1)\nclass D:\n    c: C\n    def f(self):\n        try:\n"
        "            self.c.g()\n        except ValueError:\n            pass\n",
    ],
)
def test_the_guard_finds_a_handler_that_swallows(lines):
    assert handlers_of(lines)


@pytest.mark.parametrize(
    "lines",
    [
        "def f():\n    try:\n        check(1)\n    except UserError:\n        raise\n    except OSError:\n        0\n",
        "def f():\n    try:\n        check(1)\n    except (UserError, OSError):\n        pass\n",
        "def f():\n    try:\n        check(1)\n    except BaseException:\n        clean()\n        raise\n",
        "def f():\n    try:\n        check(1)\n    except KeyError:\n        pass\n",
        "def f():\n    try:\n        int('a')\n    except ValueError:\n        pass\n",
    ],
)
def test_the_guard_passes_a_handler_that_lets_it_through(lines):
    assert handlers_of(lines) == []


def test_every_module_of_the_sources_imports_under_its_name():
    assert importlib.import_module(module_name(PACKAGE / "core" / "errors.py")) is errors

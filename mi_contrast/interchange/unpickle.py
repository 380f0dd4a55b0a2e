"""Reads a pickle as plain data: executes pickle's opcodes, but calls no functions except those that it is given.

Python's own unpickler builds objects and sets attributes on them even with a restricted `find_class`. This one knows
numbers, strings and containers. It looks every name in the file up in a table of our functions, and stops with an error
at a name that is not in the table, before it calls anything.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, cast

import numpy as np

Make = Callable[..., Any]
Makers = Mapping[tuple[str, str], Make]

MARK = object()
# Opcodes whose argument is pushed onto the stack.
LITERALS = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}
DTYPES = frozenset(("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"))


class ForbiddenError(Exception):
    """The file names something that this module doesn't read; the message is that name."""


class MalformedError(Exception):
    """The bytes are not a pickle, or a damaged one."""


@dataclass(frozen=True, eq=False)
class Global:
    """A name in the file, and our function that replaces what it names."""

    name: str
    make: Make


@dataclass(frozen=True, eq=False)
class Inert:
    """Replaces an object that we don't need, such as options, dates and paths. It has no content."""

    name: str


@dataclass(eq=False)
class Dtype:
    """A pickled numpy dtype: its kind and size ('f4'), and the byte order, which its state sets."""

    word: str
    order: str = "<"


@dataclass(eq=False)
class Array:
    """A pickled numpy array, whose state sets shape and content."""

    shape: tuple[int, ...] = ()
    dtype: str = ""
    data: bytes = field(default=b"", repr=False)
    order: str = "C"

    def array(self) -> np.ndarray:
        """Returns a copy of the array. Raises MalformedError if the number of bytes doesn't fit the shape."""
        try:
            return np.frombuffer(self.data, self.dtype).reshape(self.shape, order=self.order).copy()  # type: ignore
        except (ValueError, TypeError) as error:
            raise MalformedError(str(error)) from None


def load(file: IO[bytes], makers: Makers, persistent: Callable[[Any], Any] | None = None) -> Any:
    """Returns the value of the pickle at the file's position, and moves the position behind it.

    Args:
      file: binary.
      makers: {(module, name): function}. The file decides the arguments, so a function must do nothing but make data.
      persistent: returns the object of a persistent id; without it a persistent id is an error.

    Returns:
      numbers, strings, bytes, lists, tuples, dicts, sets, `Inert`, `Array`, and what `makers` and `persistent` return.

    Raises:
      ForbiddenError at a name that is not in `makers`, or an opcode that data don't need; MalformedError if the bytes
      are not a pickle.

    >>> import io, pickle
    >>> load(io.BytesIO(pickle.dumps({"a": [1, 2.5]}, 2)), {})
    {'a': [1, 2.5]}
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in the strings of a damaged file
            return _run(file, makers, persistent)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, MemoryError, EOFError) as error:
        raise MalformedError(f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]) from None


def _run(file: IO[bytes], makers: Makers, persistent: Callable[[Any], Any] | None) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def pop_to_mark() -> list[Any]:
        mark = max(i for i, item in enumerate(stack) if item is MARK)
        items = stack[mark + 1 :]
        del stack[mark:]
        return items

    def pop(count: int) -> list[Any]:
        items = stack[len(stack) - count :]
        if len(items) < count or any(item is MARK for item in items):
            raise MalformedError("fewer values than an opcode needs")
        del stack[len(stack) - count :]
        return items

    for opcode, opcode_argument, _ in pickletools.genops(file):
        name, argument = opcode.name, cast(Any, opcode_argument)
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            (value,) = pop(1)
            return value
        if name in LITERALS:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name]())
        elif name == "MARK":
            stack.append(MARK)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            words = argument.split(" ", 1) if name == "GLOBAL" else pop(2)
            stack.append(_look_up(words, makers))
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument)])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[int(argument)] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(pop(int(name[-1]))))
        elif name in ("TUPLE", "LIST"):
            stack.append(tuple(pop_to_mark()) if name == "TUPLE" else pop_to_mark())
        elif name == "FROZENSET":
            stack.append(frozenset(map(_check_key, pop_to_mark())))
        elif name == "DICT":
            stack.append(_make_pairs(pop_to_mark()))
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = pop(1) if name == "APPEND" else pop_to_mark()
            _extend(stack[-1], items)
        elif name in ("SETITEM", "SETITEMS"):
            pairs = _make_pairs(pop(2) if name == "SETITEM" else pop_to_mark())
            if not isinstance(stack[-1], Inert):
                _check_type(stack[-1], dict).update(pairs)
        elif name in ("REDUCE", "NEWOBJ"):
            function, arguments = pop(2)
            stack.append(_check_type(function, Global).make(*_check_type(arguments, tuple)))
        elif name == "BUILD":
            (state,) = pop(1)
            _build(stack[-1], state)
        elif name == "BINPERSID" and persistent is not None:
            stack.append(persistent(*pop(1)))
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            pop_to_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            what = _look_up(argument.split(" ", 1), makers).name if name == "INST" else "it"
            raise ForbiddenError(f"the opcode {name} ({what})")
    raise MalformedError("it has no end")


def _look_up(words: list[Any], makers: Makers) -> Global:
    """Returns our function for a module and a name. Raises ForbiddenError if there is none."""
    module, name = (str(word) for word in words)
    make = makers.get((module, name))
    if make is None:
        raise ForbiddenError(f"{module}.{name}"[:200])
    return Global(f"{module}.{name}", make)


def _make_pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(map(_check_key, items[::2]), items[1::2], strict=True))


def _check_key(value: Any) -> Any:
    """Returns the value if it may be a key. Nested tuples may not: hashing a very deep one would crash Python."""
    parts = value if isinstance(value, tuple) else (value,)
    if any(isinstance(part, (tuple, frozenset)) for part in parts):
        raise MalformedError("a key that is nested")
    return value


def _check_type(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise MalformedError(f"a {type(value).__name__} where a {kind.__name__} should be")
    return value


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif isinstance(target, set):
        target.update(map(_check_key, items))
    elif not isinstance(target, Inert):
        raise MalformedError(f"a {type(target).__name__} takes no items")


def _build(target: Any, state: Any) -> None:
    """Sets the state of a dtype (its byte order) or an array (its content). The state of other objects is ignored."""
    if isinstance(target, Dtype):
        target.order = {">": ">", "|": "|"}.get(state[1], "<")
    elif isinstance(target, Array):
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, Dtype) or not isinstance(data, bytes):
            raise ForbiddenError("a numpy array of something else than numbers")
        target.shape, target.data = tuple(int(n) for n in shape), data
        target.dtype, target.order = dtype.order + dtype.word, "F" if fortran else "C"
    elif not isinstance(target, (dict, Inert)):
        raise MalformedError(f"a {type(target).__name__} takes no state")


def make_inert(name: str) -> Make:
    """Returns a function that ignores its arguments and returns an `Inert` of this name."""
    return lambda *arguments: Inert(name)


def _dtype(word: Any = "", *_: Any) -> Dtype | Inert:
    return Dtype(word) if word in DTYPES else Inert("numpy.dtype")


def _scalar(dtype: Any, data: Any = b"") -> Any:
    if not isinstance(dtype, Dtype) or not isinstance(data, bytes):
        return Inert("numpy scalar")
    return np.frombuffer(data, dtype.order + dtype.word)[0].item()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    """Makes an array as protocol 5 writes it."""
    if not isinstance(dtype, Dtype) or not isinstance(data, (bytes, bytearray)):
        raise ForbiddenError("a numpy array of something else than numbers")
    return Array(tuple(int(n) for n in shape), dtype.order + dtype.word, bytes(data), "F" if order == "F" else "C")


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Makes bytes as protocol 2 writes them: `_codecs.encode(text, 'latin1')`."""
    if not isinstance(text, str) or encoding != "latin1":
        raise MalformedError("bytes that are not latin1 text")
    return text.encode("latin1")


def _make_dict(pairs: Any = (), *_: Any) -> dict[Any, Any]:
    return {_check_key(key): value for key, value in _check_type(pairs, list)} if pairs else {}


NUMPY: Makers = {
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): make_inert("numpy.ndarray"),
    ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): lambda *_: Array() for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}
BUILTINS: Makers = {
    ("collections", "OrderedDict"): _make_dict,
    **{(module, "set"): lambda items=(): set(map(_check_key, items)) for module in ("builtins", "__builtin__")},
    **{
        (module, "frozenset"): lambda items=(): frozenset(map(_check_key, items))
        for module in ("builtins", "__builtin__")
    },
    **{(module, "bytes"): lambda: b"" for module in ("builtins", "__builtin__")},
}

"""A pickle read as data alone: a machine for pickle's opcodes that can call nothing but the functions it is handed.

Python's own unpickler, however its `find_class` is narrowed, still builds objects and sets attributes on them. This
one knows numbers, strings and containers; a name in the file is looked up in a table of our functions, and a name that
the table lacks ends the reading, before any call.
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
PUSHED = (
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
    """The file names something that is not read; the message is that name."""


class MalformedError(Exception):
    """The bytes are no pickle, or a damaged one."""


@dataclass(frozen=True, eq=False)
class Named:
    """A name that the file mentions, and our function that stands for it."""

    name: str
    make: Make


@dataclass(frozen=True, eq=False)
class Inert:
    """What stands for an object of no use to us: options, dates, paths. It holds nothing and does nothing."""

    name: str


@dataclass(eq=False)
class Dtype:
    """A numpy dtype as pickled: its word ('f4'), and the byte order that comes with its state."""

    word: str
    order: str = "<"


@dataclass(eq=False)
class Array:
    """A numpy array as pickled, filled by its state."""

    shape: tuple[int, ...] = ()
    dtype: str = ""
    data: bytes = field(default=b"", repr=False)
    order: str = "C"

    def array(self) -> np.ndarray:
        """The array, in memory of its own. MalformedError where its bytes are not its shape's."""
        try:
            return np.frombuffer(self.data, self.dtype).reshape(self.shape, order=self.order).copy()  # type: ignore
        except (ValueError, TypeError) as error:
            raise MalformedError(str(error)) from None


def load(file: IO[bytes], makers: Makers, persistent: Callable[[Any], Any] | None = None) -> Any:
    """The value of the pickle that begins at the file's position; the position is then behind it.

    Args:
      file: binary.
      makers: {(module, name): function}; each is called with what the file says, so none may do more than make data.
      persistent: what a persistent id stands for; without it there may be none.

    Returns:
      numbers, strings, bytes, lists, tuples, dicts, sets, `Inert`, `Array`, and what `makers` and `persistent` return.
    Raises ForbiddenError at a name that `makers` lacks, or an opcode that is never needed; MalformedError where it is
    no pickle.

    >>> import io, pickle
    >>> load(io.BytesIO(pickle.dumps({"a": [1, 2.5]}, 2)), {})
    {'a': [1, 2.5]}
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in a damaged file's strings
            return _run(file, makers, persistent)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, MemoryError, EOFError) as error:
        raise MalformedError(f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]) from None


def _run(file: IO[bytes], makers: Makers, persistent: Callable[[Any], Any] | None) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def marked() -> list[Any]:
        at = max(i for i, item in enumerate(stack) if item is MARK)
        items = stack[at + 1 :]
        del stack[at:]
        return items

    def popped(count: int) -> list[Any]:
        items = stack[len(stack) - count :]
        if len(items) < count or any(item is MARK for item in items):
            raise MalformedError("fewer values than an opcode needs")
        del stack[len(stack) - count :]
        return items

    for opcode, given, _ in pickletools.genops(file):
        name, argument = opcode.name, cast(Any, given)
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            (value,) = popped(1)
            return value
        if name in PUSHED:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name]())
        elif name == "MARK":
            stack.append(MARK)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            words = argument.split(" ", 1) if name == "GLOBAL" else popped(2)
            stack.append(_named(words, makers))
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument)])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[int(argument)] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(popped(int(name[-1]))))
        elif name in ("TUPLE", "LIST"):
            stack.append(tuple(marked()) if name == "TUPLE" else marked())
        elif name == "FROZENSET":
            stack.append(frozenset(map(_key, marked())))
        elif name == "DICT":
            stack.append(_paired(marked()))
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = popped(1) if name == "APPEND" else marked()
            _extend(stack[-1], items)
        elif name in ("SETITEM", "SETITEMS"):
            pairs = _paired(popped(2) if name == "SETITEM" else marked())
            if not isinstance(stack[-1], Inert):
                _checked(stack[-1], dict).update(pairs)
        elif name in ("REDUCE", "NEWOBJ"):
            made, arguments = popped(2)
            stack.append(_checked(made, Named).make(*_checked(arguments, tuple)))
        elif name == "BUILD":
            (state,) = popped(1)
            _build(stack[-1], state)
        elif name == "BINPERSID" and persistent is not None:
            stack.append(persistent(*popped(1)))
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            marked()
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            what = _named(argument.split(" ", 1), makers).name if name == "INST" else "it"
            raise ForbiddenError(f"the opcode {name} ({what})")
    raise MalformedError("it has no end")


def _named(words: list[Any], makers: Makers) -> Named:
    module, name = (str(word) for word in words)
    make = makers.get((module, name))
    if make is None:
        raise ForbiddenError(f"{module}.{name}"[:200])
    return Named(f"{module}.{name}", make)


def _paired(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(map(_key, items[::2]), items[1::2], strict=True))


def _key(value: Any) -> Any:
    """The value, where it may be a key: a tuple nested a million times over would end Python when it is hashed."""
    parts = value if isinstance(value, tuple) else (value,)
    if any(isinstance(part, (tuple, frozenset)) for part in parts):
        raise MalformedError("a key that is nested")
    return value


def _checked(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise MalformedError(f"a {type(value).__name__} where a {kind.__name__} should be")
    return value


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif isinstance(target, set):
        target.update(map(_key, items))
    elif not isinstance(target, Inert):
        raise MalformedError(f"a {type(target).__name__} takes no items")


def _build(target: Any, state: Any) -> None:
    """The state of what we made: a dtype's byte order, an array's contents. Attributes of others are left unread."""
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


def inert(name: str) -> Make:
    """A function that takes anything and makes an `Inert` of this name."""
    return lambda *arguments: Inert(name)


def _dtype(word: Any = "", *_: Any) -> Dtype | Inert:
    return Dtype(word) if word in DTYPES else Inert("numpy.dtype")


def _scalar(dtype: Any, data: Any = b"") -> Any:
    if not isinstance(dtype, Dtype) or not isinstance(data, bytes):
        return Inert("numpy scalar")
    return np.frombuffer(data, dtype.order + dtype.word)[0].item()


def _buffered(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    """An array as protocol 5 writes it."""
    if not isinstance(dtype, Dtype) or not isinstance(data, (bytes, bytearray)):
        raise ForbiddenError("a numpy array of something else than numbers")
    return Array(tuple(int(n) for n in shape), dtype.order + dtype.word, bytes(data), "F" if order == "F" else "C")


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes as protocol 2 writes them: `_codecs.encode(text, 'latin1')`."""
    if not isinstance(text, str) or encoding != "latin1":
        raise MalformedError("bytes that are not latin1 text")
    return text.encode("latin1")


def _items(pairs: Any = (), *_: Any) -> dict[Any, Any]:
    return {_key(key): value for key, value in _checked(pairs, list)} if pairs else {}


NUMPY: Makers = {
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): inert("numpy.ndarray"),
    ("_codecs", "encode"): _encoded,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): lambda *_: Array() for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _buffered for core in ("core", "_core")},
}
BUILTINS: Makers = {
    ("collections", "OrderedDict"): _items,
    **{(module, "set"): lambda items=(): set(map(_key, items)) for module in ("builtins", "__builtin__")},
    **{(module, "frozenset"): lambda items=(): frozenset(map(_key, items)) for module in ("builtins", "__builtin__")},
    **{(module, "bytes"): lambda: b"" for module in ("builtins", "__builtin__")},
}

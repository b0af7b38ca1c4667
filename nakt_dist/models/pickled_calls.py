"""What a weights file would call while torch unpickles it, looked at before it does.

torch calls nothing that runs code, but some of what it calls takes any memory or time: a size
made of a billion bytes, or a set of them. Here the opcodes are followed without calling anything,
and calls are let through only in the form in which a tensor, or plain data beside it, is saved.
"""

import pickle
import pickletools
import re
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

_LEGACY_PICKLES = 5  # magic number, version, system, content and the keys of its storages
_MOST_LEGACY_BYTES = 2**28  # of one text
_MOST_LINE_BYTES = 1000
_MOST_KEY_PARTS = 1000


@dataclass(frozen=True)
class _Named:
    """A function or class by its full name."""

    name: str


@dataclass(frozen=True)
class _Made:
    """What a call or a mapping gives; ``values`` counts those that a tensor announces."""

    kind: str
    values: int = 0


def check_pickled_calls(path: Path, is_archive: bool, most_values: int) -> None:
    """Follows the pickles of a file that torch wrote and refuses calls no state dict needs.

    Args:
        path: the file.
        is_archive: whether it is a zip archive, as newer torch writes, whose parts are known
            to be no larger than the file.
        most_values: so many may a tensor announce that is handed to another call.

    Raises:
        pickle.UnpicklingError: such a call, named as torch names what it refuses.
        LookupError, TypeError, ValueError: the pickle is damaged.
    """
    if is_archive:
        _follow(torch._C.PyTorchFileReader(str(path)).get_record("data.pkl"), most_values)
        return
    if _is_tar(path):
        return  # torch refuses it
    with path.open("rb") as stream:
        limited = _Limited(stream)
        for _ in range(_LEGACY_PICKLES):
            if not _follow(limited, most_values):
                return


def _is_tar(path: Path) -> bool:
    try:
        tarfile.open(path, "r:").close()
    except tarfile.TarError:
        return False
    return True


class _Limited:
    """A file that gives no text longer than any in a weights file: it may be one large hole."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.tell = stream.tell

    def read(self, size: int) -> bytes:
        if size > _MOST_LEGACY_BYTES:
            raise LookupError(f"a text of {size} bytes")
        return self._stream.read(size)

    def readline(self) -> bytes:
        line = self._stream.readline(_MOST_LINE_BYTES)
        if len(line) == _MOST_LINE_BYTES:
            raise LookupError("a name without an end")
        return line


def _follow(data: bytes | _Limited, most_values: int) -> bool:
    """Says whether the pickle was followed to its end; torch stops where this cannot go on."""
    followed = _Followed(most_values)
    opcodes = pickletools.genops(data)
    while True:
        try:
            opcode, value, _ = next(opcodes)
        except ValueError:  # no opcode, or it is cut
            return False
        if opcode.name == "STOP":
            return True
        if not followed.step(opcode.name, value):
            return False


class _Followed:
    """The stack and the memory of a pickle, with stand-ins for all but plain data."""

    def __init__(self, most_values: int) -> None:
        self._most_values = most_values
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memory: dict[int, Any] = {}

    def step(self, opcode: str, value: Any) -> bool:
        """Follows one opcode; says False to one that torch does not know."""
        stack = self._stack
        if opcode in _PLAIN:
            stack.append(_TRUTH.get(opcode, value))
        elif opcode in _EMPTY:
            stack.append(_EMPTY[opcode]())
        elif opcode in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple([stack.pop() for _ in range(int(opcode[-1]))][::-1]))
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            self._memory[value] = stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET"):
            stack.append(self._memory[value])
        elif opcode == "GLOBAL":
            name = re.sub(r"^__builtin__ ", "builtins ", value)  # its name in Python 2 is saved
            stack.append(_Named(name.replace(" ", ".")))
        elif opcode != "PROTO":
            follow = _FOLLOWED.get(opcode)
            if follow is None:
                return False
            follow(self)
        return True

    def mark(self) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marked.pop()
        return items

    def make_tuple(self) -> None:
        items = self._since_mark()
        self._stack.append(tuple(items))

    def append(self) -> None:
        self._extend([self._stack.pop()])

    def appends(self) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise TypeError("only lists grow")
        self._stack[-1].extend(items)

    def set_item(self) -> None:
        self._stack.pop()
        self._set_items([self._stack.pop()])

    def set_items(self) -> None:
        self._set_items(self._since_mark()[::2])

    def _set_items(self, keys: list[Any]) -> None:
        if not all(map(_is_key, keys)):
            raise _refused("builtins.dict")

    def storage(self) -> None:
        self._stack[-1] = _Made("storage")

    def call(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._stack.append(self._called(function, arguments))

    def _called(self, function: Any, arguments: Any) -> _Made:
        name = function.name if type(function) is _Named else type(function).__name__
        if type(arguments) is not tuple:
            raise _refused(name)
        if name == "torch._tensor._rebuild_from_type_v2":  # a tensor with attributes
            rebuild, _, its_arguments, _ = arguments
            return self._called(rebuild, its_arguments)
        if name == _PARAMETER and _is_tensor(arguments[0]) and _are(arguments[1:], bool):
            return arguments[0]  # as torch saved parameters before 1.1
        if name in _PARAMETERS:  # announced ones are told by the names of their entries
            return arguments[0]
        if name in _TENSORS:
            return self._tensor(name, arguments)
        if name not in _CALLS or not _CALLS[name](arguments) or self._announces(arguments):
            raise _refused(name)
        return _Made(name)

    def _tensor(self, name: str, arguments: tuple[Any, ...]) -> _Made:
        if self._announces(arguments) or not _is_size(arguments[2:3]):
            raise _refused(name)
        values = 1
        for length in arguments[2]:
            values = min(values * length, self._most_values + 1)
        return _Made("tensor", values)

    def _announces(self, arguments: tuple[Any, ...]) -> bool:
        """Says whether a tensor of more values than there can be is among these, or in a tuple."""
        inner = [each for some in arguments if type(some) is tuple for each in some]
        made = [each for each in (*arguments, *inner) if type(each) is _Made]
        return any(each.values > self._most_values for each in made)

    def build(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if _is_tensor(target) and type(state) is tuple and _are(state[:2], bool):
            return  # of a parameter, as torch saved it before 0.4
        if not (type(target) is _Made and target.kind == _ORDERED and _is_mapping(state)):
            raise _refused("object.__setstate__")


def _refused(name: str) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(f"Unsupported call: GLOBAL {name}")


def _is_key(value: Any) -> bool:
    """Says whether a value is soon hashed: tuples in tuples may be the same ones many times."""
    if type(value) is not tuple:
        return True
    return len(value) <= _MOST_KEY_PARTS and not any(type(each) is tuple for each in value)


def _is_tensor(value: Any) -> bool:
    return type(value) is _Made and value.kind == "tensor"


def _is_mapping(value: Any) -> bool:
    return type(value) is _Made and value.kind in ("dict", _ORDERED)


def _is_size(arguments: tuple[Any, ...]) -> bool:
    return len(arguments) == 1 and type(arguments[0]) is tuple and _are(arguments[0], int)


def _are(values: Iterable[Any], *kinds: type) -> bool:
    return all(type(value) in kinds for value in values)


def _is_latin_text(arguments: tuple[Any, ...]) -> bool:
    """Bytes are saved as text; another encoding might give more than it takes."""
    return len(arguments) == 2 and _are(arguments, str) and arguments[1] in ("latin1", "latin-1")


def _are_pairs(values: Any) -> bool:
    """As Python 2 saved ordered mappings."""
    return type(values) is list and all(
        type(pair) in (list, tuple) and len(pair) == 2 and _is_key(pair[0]) for pair in values
    )


_ORDERED = "collections.OrderedDict"
_BYTES = _Made("_codecs.encode")

_CALLS: dict[str, Callable[[tuple[Any, ...]], bool]] = {
    _ORDERED: lambda given: not given or (len(given) == 1 and _are_pairs(given[0])),
    "collections.Counter": lambda given: not given or (len(given) == 1 and _is_mapping(given[0])),
    "builtins.set": lambda given: (
        len(given) == 1 and type(given[0]) is list and all(map(_is_key, given[0]))
    ),
    "builtins.bytearray": lambda given: given in ((), (_BYTES,)) or _is_latin_text(given),
    "builtins.complex": lambda given: _are(given, int, float),
    _BYTES.kind: _is_latin_text,
    "torch.Size": _is_size,
    "torch.device": lambda given: _are(given, str, int),
    "torch.serialization._get_layout": lambda given: _are(given, str),
    "torch._utils._rebuild_sparse_tensor": lambda given: True,
    "torch._utils._rebuild_meta_tensor_no_storage": lambda given: True,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": lambda given: True,
}
"""The form in which torch, or pickle, saves plain data and tensors of special kinds."""

_TENSORS = {
    f"torch._utils._rebuild_{each}" for each in ("tensor", "tensor_v2", "tensor_v3", "qtensor")
}
"""Storage, offset and size come first in their arguments."""

_PARAMETER = "torch.nn.parameter.Parameter"
_PARAMETERS = {f"torch._utils._rebuild_{each}" for each in ("parameter", "parameter_with_state")}

_PLAIN = {
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1"),
    *("BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"),
}

_TRUTH = {"NEWTRUE": True, "NEWFALSE": False}
"""Values that the opcode itself says."""

_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": lambda: _Made("dict"),
    "EMPTY_SET": lambda: _Made("set"),
}

_FOLLOWED = {
    "MARK": _Followed.mark,
    "TUPLE": _Followed.make_tuple,
    "APPEND": _Followed.append,
    "APPENDS": _Followed.appends,
    "SETITEM": _Followed.set_item,
    "SETITEMS": _Followed.set_items,
    "BINPERSID": _Followed.storage,
    "REDUCE": _Followed.call,
    "NEWOBJ": _Followed.call,
    "BUILD": _Followed.build,
}

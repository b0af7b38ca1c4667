"""What a weights file would call while torch unpickles it, looked at before it does.

torch calls nothing that runs code, but some of what it calls takes any memory or time: a size
made of a billion bytes, or a set of them. Here Python's own unpickler follows the opcodes that
torch knows, with stand-ins for all that would be called, and calls are let through only in the
form in which a tensor, or plain data beside it, is saved.

A child process that lets torch read the file under limits of memory and time does not do instead.
Measured with the files of tests/hostile: it takes 2 s of processor time a file to import torch,
where this takes 0.05 s for a DenseNet-121 with its optimiser; tuples in tuples stop at a limit of
1 s alone, which whole files of a few GB need; a sparse tensor of 300 million announced places is
read in 7 s; what was refused has no name; and macOS does not limit a process's memory.
"""

import io
import pickle
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


def check_pickled_calls(path: Path, is_archive: bool, most_values: int) -> None:
    """Follows the pickles of a file that torch wrote and refuses calls no state dict needs.

    Args:
        is_archive: whether it is a zip archive, as newer torch writes, whose parts are known
            to be no larger than the file.
        most_values: so many may a tensor announce that is handed to another call.

    Raises:
        pickle.UnpicklingError: such a call, named as torch names what it refuses.
        Exception: the pickle is damaged.
    """
    if is_archive:
        data = torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")
        _follow(io.BytesIO(data), most_values)
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

    def read(self, size: int) -> bytes:
        if size > _MOST_LEGACY_BYTES:
            raise LookupError(f"a text of {size} bytes")
        return self._stream.read(size)

    def readline(self) -> bytes:
        line = self._stream.readline(_MOST_LINE_BYTES)
        if len(line) == _MOST_LINE_BYTES:
            raise LookupError("a name without an end")
        return line


def _follow(stream: BinaryIO | _Limited, most_values: int) -> bool:
    """Says whether the pickle was followed to its end; torch stops where this cannot go on."""
    try:
        _Follower(stream, most_values).load()
    except (EOFError, _UnknownOpcode):
        return False
    except _Refused:
        raise
    except pickle.UnpicklingError as error:
        raise LookupError(str(error)) from None  # damaged
    return True


class _UnknownOpcode(Exception):
    """An opcode that torch does not know."""


class _Refused(pickle.UnpicklingError):
    """A call that no state dict needs."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Unsupported call: GLOBAL {name}")


@dataclass(frozen=True)
class _Made:
    """What a call or a mapping gives; ``values`` counts those that a tensor announces."""

    kind: str
    values: int = 0

    def __setitem__(self, key: Any, value: Any) -> None:
        if self.kind not in _MAPPINGS:
            raise TypeError("only mappings have entries")
        if not _is_key(key):
            raise _Refused("builtins.dict")

    def __setstate__(self, state: Any) -> None:
        if self.kind == "tensor" and type(state) is tuple and _are(state[:2], bool):
            return  # of a parameter, as torch saved it before 0.4
        if self.kind == _NUMPY_TYPE and state in _NUMPY_STATES:
            return
        if self.kind != _ORDERED or not _is_mapping(state):
            raise _Refused("object.__setstate__")


@dataclass(frozen=True)
class _Named:
    """A function or class by its full name; ``most_values`` is what its arguments may announce."""

    name: str
    most_values: int

    def __setstate__(self, state: Any) -> None:
        raise _Refused("object.__setstate__")

    def __call__(self, *arguments: Any) -> _Made:
        name = self.name
        if name == "torch._tensor._rebuild_from_type_v2":  # a tensor with attributes
            rebuild, _, its_arguments, _ = arguments
            if type(rebuild) is not _Named or type(its_arguments) is not tuple:
                raise _Refused(name)
            return rebuild(*its_arguments)
        if name == _PARAMETER and _is_tensor(arguments[0]) and _are(arguments[1:], bool):
            return arguments[0]  # as torch saved parameters before 1.1
        if name in _PARAMETERS:  # announced ones are told by the names of their entries
            return arguments[0]
        if name in _TENSORS:
            return self._tensor(arguments)
        if name not in _CALLS or not _CALLS[name](arguments) or self._announces(arguments):
            raise _Refused(name)
        return _Made(name)

    def _tensor(self, arguments: tuple[Any, ...]) -> _Made:
        if self._announces(arguments) or not _is_size(arguments[2:3]):
            raise _Refused(self.name)
        values = 1
        for length in arguments[2]:
            values = min(values * length, self.most_values + 1)
        return _Made("tensor", values)

    def _announces(self, arguments: tuple[Any, ...]) -> bool:
        """Says whether a tensor of more values than there can be is among these, or in a tuple."""
        inner = [each for some in arguments if type(some) is tuple for each in some]
        made = [each for each in (*arguments, *inner) if type(each) is _Made]
        return any(each.values > self.most_values for each in made)


class _Opcodes(dict[int, Callable[[Any], None]]):
    """What is done at an opcode."""

    def __missing__(self, opcode: int) -> None:
        raise _UnknownOpcode


_UNCHANGED = (
    *(pickle.PROTO, pickle.STOP, pickle.GLOBAL, pickle.BINPERSID, pickle.BUILD),
    *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2),
    *(pickle.LONG1, pickle.BINFLOAT, pickle.BINUNICODE, pickle.SHORT_BINSTRING),
    *(pickle.MARK, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_TUPLE),
    *(pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.SETITEM, pickle.SETITEMS),
    *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.BINGET, pickle.LONG_BINGET),
)


class _Follower(pickle._Unpickler):
    """Python's unpickler written in Python, with stand-ins for all but plain data."""

    stack: list[Any]  # the base class has both, and typeshed does not know
    append: Callable[[Any], None]

    def __init__(self, stream: BinaryIO | _Limited, most_values: int) -> None:
        super().__init__(stream, encoding="utf-8")
        self._most_values = most_values

    def find_class(self, module: str, name: str) -> _Named:
        """Takes a function or class by its name; the name in Python 2 is what files have."""
        module = "builtins" if module == "__builtin__" else module
        return _Named(f"{module}.{name}", self._most_values)

    def persistent_load(self, pid: Any) -> _Made:
        """Takes a storage for one."""
        return _Made("storage")

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not _Named or type(arguments) is not tuple:
            raise _Refused(getattr(function, "name", type(function).__name__))
        self.append(function(*arguments))

    dispatch = _Opcodes({each[0]: pickle._Unpickler.dispatch[each[0]] for each in _UNCHANGED})
    dispatch[pickle.REDUCE[0]] = dispatch[pickle.NEWOBJ[0]] = _call
    dispatch[pickle.EMPTY_DICT[0]] = lambda self: self.append(_Made("dict"))
    dispatch[pickle.EMPTY_SET[0]] = lambda self: self.append(_Made("set"))


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
_MAPPINGS = ("dict", _ORDERED, "collections.Counter")
_BYTES = _Made("_codecs.encode")

_NUMPY_TYPE = "numpy.dtype"
_NUMPY_STATES = [(3, order, None, None, None, -1, -1, 0) for order in "<>|"]
NUMPY_KINDS = ("b1", "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
"""The kinds of numbers that are read, in NumPy's letters; none of them holds objects."""
NUMPY_NUMBERS = tuple(f"numpy.{each}.multiarray.scalar" for each in ("core", "_core"))
"""A single number of NumPy, such as the best score beside many a network, in both its spellings."""

_CALLS: dict[str, Callable[[tuple[Any, ...]], bool]] = {
    _ORDERED: lambda given: not given or (len(given) == 1 and _are_pairs(given[0])),
    "collections.Counter": lambda given: not given or (len(given) == 1 and _is_mapping(given[0])),
    "builtins.set": lambda given: (
        len(given) == 1 and type(given[0]) is list and all(map(_is_key, given[0]))
    ),
    "builtins.bytearray": lambda given: given in ((), (_BYTES,)) or _is_latin_text(given),
    "builtins.complex": lambda given: _are(given, int, float),
    _BYTES.kind: _is_latin_text,
    _NUMPY_TYPE: lambda given: (
        len(given) == 3 and given[0] in NUMPY_KINDS and _are(given[1:], bool)
    ),
    **dict.fromkeys(NUMPY_NUMBERS, lambda given: given == (_Made(_NUMPY_TYPE), _BYTES)),
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

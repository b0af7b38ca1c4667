"""What goes wrong in loader processes, said in one line."""

import contextlib
from collections.abc import Iterator

from nakt_dist.errors import NaktError


@contextlib.contextmanager
def explain_loader_errors() -> Iterator[None]:
    """Turns what torch says about a loader process into the error that a user can act on.

    Raises:
        NaktError: of the same class and with the message that the loader process gave; or it
            was killed.
    """
    try:
        yield
    except NaktError as error:
        told = _last_message(error)
        if told == str(error):
            raise
        raise type(error)(told) from None
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise NaktError(
            f"a loader process has ended ({str(error).splitlines()[0].strip()}), often for want "
            "of memory. Start the same command again to go on from the last checkpoint, with fewer "
            "--workers if memory is short"
        ) from error


def _last_message(error: NaktError) -> str:
    """Returns the message without the traceback that torch puts before it."""
    kind = type(error)
    return str(error).rpartition(f"\n{kind.__module__}.{kind.__qualname__}: ")[2].strip()

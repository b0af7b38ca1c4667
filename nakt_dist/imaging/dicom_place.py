"""Where a DICOM picture belongs: its series and its place there, and nothing else of its header."""

import io
import re
from dataclasses import dataclass
from pathlib import Path

from nakt_dist.imaging.dicom import import_pydicom
from nakt_dist.imaging.dicom_recognition import data_set_start

_HEAD_BYTES = 2**20
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_ELEMENTS = ["SOPInstanceUID", "SeriesInstanceUID", "InstanceNumber"]
_LAST = 0x00200013
_UID = re.compile(r"[0-9][0-9.]{0,63}")


@dataclass(frozen=True, slots=True)
class DicomPlace:
    """Where a picture belongs.

    Attributes:
        series: UID of its series; empty where the header says none.
        instance: UID of the file itself; likewise.
        number: in the series; None where the header says none.
    """

    series: str = ""
    instance: str = ""
    number: int | None = None


def read_place(path: Path) -> DicomPlace | None:
    """Reads where a DICOM file belongs, from its first mebibyte.

    A header that cannot be read, or is compressed as a whole, says nothing.

    Returns:
        None for a file that is not DICOM, or cannot be opened.

    Raises:
        ConfigurationError: pydicom is not installed.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except (OSError, ValueError):
        return None
    start = data_set_start(head)
    if start is None:
        return None
    pydicom = import_pydicom(path.name)
    if _DEFLATED in head:  # pydicom would inflate it whole, however large it becomes
        return DicomPlace()
    if head[128:132] != b"DICM":  # pydicom knows files without the mark from their beginning
        head = head[start:]
    try:
        header = pydicom.filereader.read_partial(
            io.BytesIO(head),
            stop_when=lambda tag, vr, length: tag > _LAST,
            force=True,
            specific_tags=[pydicom.tag.Tag(name) for name in _ELEMENTS],
        )
        found = [header.get(name) for name in _ELEMENTS]
    except Exception:  # what pydicom raises on hostile bytes is anybody's guess
        return DicomPlace()
    instance, series, number = found
    return DicomPlace(
        _uid(series), _uid(instance), int(number) if isinstance(number, int) else None
    )


def _uid(value: object) -> str:
    """Returns an identifier; empty where it is none, as it may become the name of a file."""
    text = str(value or "")
    return text if _UID.fullmatch(text) and ".." not in text else ""

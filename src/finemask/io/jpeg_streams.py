"""JPEG, JPEG-LS and JPEG 2000 streams looked at before a decoder is let loose on them.

A decoder believes the size that the stream states, whatever the DICOM header
says, and some fill a stream that was cut off without a word.
"""

from __future__ import annotations

import struct
from pathlib import Path

from finemask.errors import DataError

FAMILY = ("1.2.840.10008.1.2.4.5", "1.2.840.10008.1.2.4.8", "1.2.840.10008.1.2.4.9",
          "1.2.840.10008.1.2.4.20")  # fmt: skip
"""How the UIDs of these transfer syntaxes begin (JPEG, JPEG-LS, JPEG 2000 and its fast kind)."""

_END = b"\xff\xd9"
_JPEG, _JPEG_2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7)
"""Second bytes of the markers that state a size."""


def check_stream(path: Path, stream: bytes, size: tuple[int, int], which: str) -> None:
    """Refuse a compressed image that was cut off or is of another size than its header says.

    Args:
        path: For messages.
        stream: One compressed frame.
        size: Rows and columns of the header.
        which: How a message names the frame.

    Raises:
        DataError: As above.
    """
    if stream.rstrip(b"\0")[-2:] != _END:
        raise DataError(path, f"is truncated ({which} has no end mark)", "copy or export it again")
    found = stream_size(stream)
    if found != size:
        told = "states no size" if found is None else f"is {found[0]} x {found[1]}"
        raise DataError(
            path, f"is corrupt ({which} {told}, its header says {size[0]} x {size[1]})",
            "export it again",
        )  # fmt: skip


def stream_size(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns that a stream states; ``None`` if it states none.

    Example:
        >>> stream_size(bytes.fromhex("ffd8 ffe0 0004 0000 ffc0 000b 08 0010 0020 01 01 11 00"))
        (16, 32)
    """
    start = stream.find(_JPEG_2000)
    if start >= 0 and not stream.startswith(_JPEG):
        try:
            right, bottom, left, top = struct.unpack_from(">4I", stream, start + 8)
        except struct.error:
            return None
        return bottom - top, right - left
    position = 2
    while stream.startswith(_JPEG) and position + 9 <= len(stream) and stream[position] == 0xFF:
        marker = stream[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        length, _, rows, columns = struct.unpack_from(">HBHH", stream, position + 2)
        if marker in _FRAMES:
            return rows, columns
        position += 2 + length
    return None

"""Files to cases and back; every optional reader lives here."""

from __future__ import annotations

from finemask.io.files import atomic_write, check_name, sha256, write_json, write_text
from finemask.io.notices import DataWarning, warn

__all__ = [
    "DataWarning",
    "atomic_write",
    "check_name",
    "sha256",
    "warn",
    "write_json",
    "write_text",
]

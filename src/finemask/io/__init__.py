"""Files to cases and back; every optional reader lives here."""

from __future__ import annotations

from finemask.io.cases import read_case
from finemask.io.dicom_seg_writing import write_segmentation
from finemask.io.files import atomic_write, check_name, sha256, write_json, write_text
from finemask.io.formats import find_images, is_image, read_header, stem
from finemask.io.images import read_image, read_probs, write_image, write_probs
from finemask.io.labels import foreground_values, label_values, read_labels, write_labels
from finemask.io.notices import DataWarning, warn
from finemask.io.raster import Header

__all__ = [
    "DataWarning",
    "Header",
    "atomic_write",
    "check_name",
    "find_images",
    "foreground_values",
    "is_image",
    "label_values",
    "read_case",
    "read_header",
    "read_image",
    "read_labels",
    "read_probs",
    "sha256",
    "stem",
    "warn",
    "write_image",
    "write_json",
    "write_labels",
    "write_probs",
    "write_segmentation",
    "write_text",
]

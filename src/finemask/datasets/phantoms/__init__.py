"""Generated pictures of anatomy with known truth: the embedded default data, no patient.

``fields`` are textures, ``shapes`` and ``trees`` anatomy as level functions,
``skin``, ``ultrasound``, ``vessels`` and ``nodules`` put an image together,
``readers`` mark it, ``make`` writes it.
"""

from __future__ import annotations

from finemask.datasets.phantoms.make import Phantom, make_phantom, make_phantoms
from finemask.datasets.phantoms.readers import Recist

__all__ = ["Phantom", "Recist", "make_phantom", "make_phantoms"]

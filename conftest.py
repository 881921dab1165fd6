"""What every test and doctest shares."""

from __future__ import annotations

import os

# Two workers on two cores: threads of their own would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

# Machines are shared; a slow moment is no failure.
settings.register_profile("finemask", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("finemask")

collect_ignore_glob = ["tests/golden/make_*.py"]
"""Scripts that made the golden values, by libraries that the tests do without."""

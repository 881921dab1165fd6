"""What was done to each case: ``soften.jsonl``, which ``--resume`` trusts.

A case counts as done when its last line says so, nothing that decides the
result has changed, and every file it was made from and every file it left has
its checksum.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from finemask.io import journal, sha256

FILE = "soften.jsonl"
KIND = "finemask soften"
NEEDED = {"made_by", "inputs", "rows", "cases", "failures"}


class Journal(journal.Journal):
    """The journal of an output folder.

    Args:
        out: The folder.
        keep: Go on with what is written there; else it is begun anew, and files that it
            lists are removed.

    Raises:
        UsageError: When the folder holds something else.
    """

    def __init__(self, out: Path, keep: bool) -> None:
        super().__init__(out / FILE, KIND, NEEDED, keep)

    def is_done(self, name: str, made_by: str, inputs: Sequence[Path]) -> bool:
        """Whether a case need not be done again, judged by checksums alone."""
        line = self.lines.get(name)
        if not line or not line["rows"] or line["made_by"] != made_by:
            return False
        try:
            return [i["sha256"] for i in line["inputs"]] == [sha256(p) for p in inputs] and all(
                sha256(self.out / output["path"]) == output["sha256"] for output in line["outputs"]
            )
        except OSError:
            return False

"""What was done to each case: ``soften.jsonl``, which ``--resume`` trusts.

A case counts as done when its last line says so, nothing that decides the
result has changed, and every file it was made from and every file it left has
its checksum.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from finemask.io import journal, sha256
from finemask.io.journal import read_journal
from finemask.io.outputs import shard_tag

FILE = "soften.jsonl"
OURS = re.compile(r"soften(_\d+of\d+)?\.jsonl")
KIND = "finemask soften"
NEEDED = {"made_by", "inputs", "rows", "cases", "failures"}


def file_of(shard: tuple[int, int] | None) -> str:
    """Name of the journal of a whole call, or of a shard.

    Example:
        >>> file_of(None), file_of((2, 5))
        ('soften.jsonl', 'soften_2of5.jsonl')
    """
    return f"soften{shard_tag(shard)}.jsonl"


def journals_in(out: Path) -> list[Path]:
    """The journals of a folder, those of shards included."""
    return sorted(p for p in out.glob("soften*.jsonl") if OURS.fullmatch(p.name))


class Journal(journal.Journal):
    """The journal of an output folder.

    Args:
        out: The folder.
        keep: Go on with what is written there, by other shards, too; else it is begun anew,
            and files that it lists are removed.
        shard: ``(i, n)`` of a call that does one share of the cases.

    Raises:
        UsageError: When the folder holds something else.
    """

    def __init__(self, out: Path, keep: bool, shard: tuple[int, int] | None = None) -> None:
        others = [p for p in journals_in(out) if p.name != file_of(shard)]
        super().__init__(out / file_of(shard), KIND, NEEDED, keep)
        if keep:
            known = {n: line for p in others for n, line in read_journal(p, KIND, NEEDED).items()}
            self.lines = known | self.lines
        self._merged = () if shard else tuple(others)

    def merge(self) -> None:
        """Take over what other shards wrote down, once every one of their cases is known."""
        if self._merged:
            for name, line in self.lines.items():
                self._append({"case": name, **line})
        for path in self._merged:
            path.unlink(missing_ok=True)

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

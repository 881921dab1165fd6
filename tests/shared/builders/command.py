"""A command as a user calls it, in this process: exit code and what it said."""

from __future__ import annotations

import contextlib
import io
import sys
from unittest import mock

from finemask import cli


def finemask(*words: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``finemask words``."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["finemask", "--quiet", *map(str, words)]
    with (
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as stopped:
            return int(stopped.code or 0), out.getvalue(), err.getvalue()
    raise AssertionError("main() always exits")

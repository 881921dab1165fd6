"""``python -m finemask``."""

from finemask.cli import main

main()

"""``python -m bbtune`` is the command line."""

from bbtune.cli import main

main()

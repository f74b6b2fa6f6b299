"""``python -m collapse_lab`` is the command line."""

from collapse_lab.cli import main

main()

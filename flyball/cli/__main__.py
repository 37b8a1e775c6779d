"""`python -m flyball.cli`: the same as `flyball`."""

import sys

from flyball.cli import main

if __name__ == "__main__":
    sys.exit(main())

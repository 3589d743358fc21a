"""``python -m shmcomm``: the command line (see ``shmcomm._cli``)."""

import sys

from shmcomm._cli import main

if __name__ == "__main__":
    sys.exit(main())

"""``python -m cvops.distributed``: the scheduler or a server of a training."""

import sys

from cvops.distributed.service import main

if __name__ == "__main__":
    sys.exit(main())

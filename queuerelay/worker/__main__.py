"""``python -m queuerelay.worker``."""

import sys

from queuerelay.worker.main import main

sys.exit(main())

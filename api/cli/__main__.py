"""``python -m api.cli`` is ``nightshift``."""

import sys

from api.cli import main

sys.exit(main())

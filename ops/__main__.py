"""`python -m ops`: the phoenix command."""

import sys

from ops.cli import main

sys.exit(main())

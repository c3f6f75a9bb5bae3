"""`python -m devices`: simulated devices, without the rest of Amber."""

import sys

from devices.cli import main

sys.exit(main())

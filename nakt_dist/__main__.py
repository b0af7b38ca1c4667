"""``python -m nakt_dist``, what ``accelerate launch -m`` and torchrun start."""

import sys

from nakt_dist.cli import main

sys.exit(main())

"""``python -m nakt_dist``, what ``accelerate launch -m`` and torchrun start."""

import sys

from nakt_dist.cli import main
from nakt_dist.runtime.relaunch import follow_launcher

follow_launcher(sys.argv[1:])
sys.exit(main())

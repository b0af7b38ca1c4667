"""``python -m nakt_dist``, what ``accelerate launch -m`` and torchrun start."""

import sys

from nakt_dist.cli import main
from nakt_dist.runtime.relaunch import start_missing_processes

start_missing_processes(sys.argv[1:])
sys.exit(main())

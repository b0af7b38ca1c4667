"""Runs a stage again and again, killing it with -9 at random moments, and compares the result.

    python tests/faults/chaos.py STAGE --kills K [--seed S] [--world W]

STAGE is pack, teach, train or evaluate. The last line counts what an undisturbed run has and
this one has not: ``lost 0, duplicated 0, identical yes``, and the exit status is 0 then alone.
"""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    root = str(Path(__file__).resolve().parents[2])
    sys.path.insert(0, root)
    os.environ["PYTHONPATH"] = os.pathsep.join(  # for the processes that are started
        [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    from tests.faults.chaos_rounds import main

    sys.exit(main())

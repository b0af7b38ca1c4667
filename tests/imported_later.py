"""Imports all that ranks need, at once or later, for the server that they are forked from.

Each rank would by itself, for up to four seconds. What is not installed, or cannot be imported on
this machine, is left to the tests that need it.
"""

import atexit
import contextlib
import gc
import importlib
import os

gc.disable()  # what is imported stays

import torch  # noqa: E402

from nakt_dist.cli import STAGES, load_stage, parse_config  # noqa: E402
from nakt_dist.errors import NaktError  # noqa: E402
from nakt_dist.records.run_record import package_versions  # noqa: E402
from nakt_dist.shards import manifest  # noqa: E402
from tests import conftest, launching  # noqa: E402, F401

_MODULES = (
    "contourpy", "docstring_parser", "matplotlib.backends.backend_agg",
    "nakt_dist.drawing.sheets", "nakt_dist.models.unet", "numpy.ctypeslib", "numpy.ma",
    "PIL.ImageDraw", "PIL.PpmImagePlugin", "pyarrow.dataset", "pydantic.dataclasses",
    "segmentation_models_pytorch", "setuptools", "torch._dynamo",
)  # fmt: skip
# They may look at a GPU, and a process that has woken one cannot be forked from.
_BESIDE_NO_GPU = (
    "deepspeed.runtime.zero.muon.muon_optimizer", "torch._inductor.compile_fx",
    "transformers.integrations",
)  # fmt: skip

package_versions()
for _kind in (manifest.ShardManifest, *manifest._TaughtManifest.__subclasses__()):
    manifest._adapter(_kind)
for _name in STAGES:
    load_stage(_name)
    with contextlib.suppress(NaktError):  # for want of settings; its parser is there then
        parse_config(_name, [])
for _name in _MODULES if torch.cuda.is_available() else _MODULES + _BESIDE_NO_GPU:
    with contextlib.suppress(Exception):
        importlib.import_module(_name)

gc.freeze()  # a rank that looked for garbage in it would copy all of it
gc.enable()
atexit.register(os._exit, 0)  # the server need not take all this down

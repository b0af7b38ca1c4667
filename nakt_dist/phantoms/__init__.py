"""Procedural datasets in the layouts of published ones.

They let every stage be tried, tested and timed without downloading anything. The images
are schematic: good for checking that knowledge moves, never for a clinical claim.
"""

from nakt_dist.phantoms.dataset import (
    PHANTOM_KINDS,
    PhantomKind,
    PhantomSummary,
    write_phantom_dataset,
)

__all__ = ["PHANTOM_KINDS", "PhantomKind", "PhantomSummary", "write_phantom_dataset"]

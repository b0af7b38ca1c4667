"""Chest X-ray phantoms of three hospitals: patients, their findings, films and layouts."""

from nakt_dist.phantoms.chest.drawing import ChestPhantom, draw_chest

__all__ = ["ChestPhantom", "draw_chest"]

"""Distributed knowledge transfer between networks on medical images."""

__version__ = "0.1.0"

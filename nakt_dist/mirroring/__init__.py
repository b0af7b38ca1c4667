"""Runs that are on disk, shown in W&B, TensorBoard or trackio: read, described, sent."""

"""Pixels of files that nobody vouches for: bounded decoding, one form for images and masks."""

"""What runs leave of themselves: what was learnt from what, and what that means for a test."""

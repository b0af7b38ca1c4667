"""One runnable file or folder per question; see README.md."""

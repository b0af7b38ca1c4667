"""Images as they are published, what a network says of them, and the files that hold it."""

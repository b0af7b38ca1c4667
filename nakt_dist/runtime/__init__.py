"""What every stage needs and no paper mentions: files, processes, shared work, tracking."""

"""What every stage needs and no paper mentions: files, processes, records, tracking."""

"""Video files as frames, and what tells two of them apart. Doors: `reading.read_clip`, `comparison.compare`."""

"""What is shown of a video or a network before or without making anything."""

"""What is shown of a video or a network before or without making anything.

A video → what is known of it (`info`), or some of its frames, made larger (`preview`); a window of
frames → where the network looks (`offsets`); both → a picture (`drawing`).

Public: `info.describe`, `offsets.inspect`, `preview.detailed_part`.
"""

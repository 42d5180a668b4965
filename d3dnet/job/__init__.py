"""A video made larger: in segments that survive a break, by one process or by many.

A video → segments at its cuts (`segments`) → frames through the network (`pipeline`) → encoded
segments, each a line of the `journal` → the result, joined, compared and named (`finish`).

Public: `upscale.upscale_video`, `frames.upscale_frames` (the same in memory).
"""

"""Clips: of test sets, and of training as pairs of luma; what makes them, and what draws of them.

Files → frames (`frames`) → low resolution (`imresize`) and luma (`luma`) → clips of test sets
(`benchmarks`), of videos and stills (`clips`, `stills`), of Vimeo-90k (`vimeo90k`, packed by
`luma_store`) → samples (`patches`, `pans`, `scenes`, with motion: `clip_motion`).

Public: `imresize.imresize`, `imresize.degrade`, `luma.luma`, `frames.read_clip`,
`benchmarks.find_clips`, `benchmarks.make_lr`, `clips.load_clips`, `luma_store.pack`,
`luma_store.LumaStore`, `vimeo90k.Vimeo90k`.
"""

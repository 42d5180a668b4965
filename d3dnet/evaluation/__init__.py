"""Networks on test sets: protocols, metrics, results and what is shown of them.

Clips of a set → low resolution → frames made larger (`upscalers`) → scores of a protocol
(`metrics`, `temporal`, `movie_index`) → means and a table (`results`) beside `published` rows → a
`report`.

Public: `evaluate.evaluate`, `evaluate.evaluate_frames`, `metrics.PROTOCOLS`,
`metrics.get_protocol`, `metrics.score_frame`, `metrics.psnr`, `metrics.ssim`, `temporal.tof`,
`temporal.temporal_error`, `movie_index.MovieScore`.
"""

"""Networks on test sets: protocols, metrics, results and what is shown of them.

Clips of a set → low resolution → frames made larger (`upscalers`) → scores (`metrics`, `temporal`,
`movie_index`, as `protocols` say) → means and a table (`results`) beside `published` rows → a
`report`.

Public: `evaluate.evaluate`, `evaluate.evaluate_frames`, `protocols.PROTOCOLS`,
`protocols.get_protocol`, `metrics.score_frame`, `metrics.psnr`, `metrics.ssim`, `temporal.tof`,
`temporal.temporal_error`, `movie_index.MovieScore`.
"""

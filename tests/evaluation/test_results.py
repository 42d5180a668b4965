"""Results as a table, JSON and CSV."""

import csv
import json

import pytest

from d3dnet.evaluation.movie_index import MovieFrame, MovieScore
from d3dnet.evaluation.results import ClipResult, EvaluationResult, FrameResult
from d3dnet.network.complexity import Complexity


def clip(name: str, movie: bool = True) -> ClipResult:
    frames = (FrameResult(2, 25.5, 0.75), FrameResult(3, 26.5, 0.85))
    score = MovieScore(0.0042, 0.035, 0.0144, (MovieFrame(3, 0.035, 0.0144),)) if movie else None
    return ClipResult(name, 26.0, 0.8, frames, "made", 0.5, score, 0.25 if movie else None)


def whole(**changed: object) -> EvaluationResult:
    settings = {
        "dataset": "Vid4", "protocol": "d3dnet", "model": "d3dnet", "mode": "window",
        "psnr": 26.0, "ssim": 0.8, "clips": (clip("city"), clip("walk")), "notes": ("a note",),
        "movie": 0.0042, "t_movie": 0.0144, "range_compressed": True, "tof": 0.25,
        "seconds_per_frame": 0.5, "complexity": Complexity(2_579_941, 850_500_000_000),
    }  # fmt: skip
    return EvaluationResult(**{**settings, **changed})


def cells(result: EvaluationResult, start: str) -> list[str]:
    (line,) = [line for line in result.table().splitlines() if line.startswith(start)]
    return line.split()


def test_everything_measured_has_a_column_beside_the_published_rows():
    result = whole()
    assert cells(result, "Vid4")[3:] == [
        "PSNR", "SSIM", "T-MOVIE", "MOVIE", "tOF", "Mparams", "GMACs", "s/frame",
    ]  # fmt: skip
    assert cells(result, "city") == ["city", "26.000", "0.8000", "14.40", "4.20", "0.250", "0.500"]
    assert cells(result, "mean:")[3:] == [
        "26.000", "0.8000", "14.40", "4.20", "0.250", "2.58", "850.5", "0.500",
    ]  # fmt: skip
    assert cells(result, "published: D3Dnet")[2:] == [
        "26.520", "0.7990", "15.45", "3.38", "2.58", "408.8",
    ]  # fmt: skip
    assert cells(result, "published: bicubic")[2:] == ["23.760", "0.6310"]


def test_columns_line_up():
    head, *rows = whole().table().splitlines()[:4]
    ends = {head.index("T-MOVIE") + 7} | {row.index("14.40") + 5 for row in rows}
    assert len(ends) == 1


def test_what_was_not_measured_has_no_column():
    plain = whole(
        clips=(clip("city", movie=False),), movie=None, t_movie=None, range_compressed=None,
        tof=None, complexity=None,
    )  # fmt: skip
    assert cells(plain, "Vid4")[3:] == ["PSNR", "SSIM"]
    assert [line for line in plain.table().splitlines() if line.startswith("note")] == [
        "note: a note"
    ]


def test_published_movie_stands_beside_movie_of_compressed_range_only():
    plain = whole(range_compressed=False)
    assert cells(plain, "published: D3Dnet")[2:] == ["26.520", "0.7990", "2.58", "408.8"]
    assert "does not compare with published figures" in plain.table()
    assert "of luma of compressed range, as published" in whole().table()


def test_json_holds_everything():
    written = json.loads(whole().to_json())
    assert written["movie"] == 0.0042 and written["range_compressed"] is True
    assert written["complexity"] == {
        "parameters": 2_579_941, "macs": 850_500_000_000, "height": 720, "width": 1280,
    }  # fmt: skip
    assert written["clips"][0]["movie"]["frames"] == [
        {"index": 3, "spatial": 0.035, "temporal": 0.0144}
    ]
    assert written["clips"][1]["tof"] == 0.25 and written["clips"][0]["seconds_per_frame"] == 0.5


@pytest.mark.parametrize("movie", [True, False])
def test_csv_has_a_line_for_each_frame(movie):
    result = whole(clips=(clip("city", movie), clip('w"alk, 2', movie)))
    if not movie:
        result = whole(clips=result.clips, movie=None)
    rows = list(csv.reader(result.to_csv().splitlines()))
    assert rows[0] == ["clip", "frame", "psnr", "ssim"] + ["spatial_movie", "t_movie"] * movie
    assert rows[1] == ["city", "2", "25.5", "0.75"] + ["", ""] * movie
    assert rows[2] == ["city", "3", "26.5", "0.85"] + ["0.035", "0.0144"] * movie
    assert rows[3][0] == 'w"alk, 2' and len(rows) == 5


def test_frames_where_only_movie_is_evaluated_have_a_line_too():
    score = MovieScore(0.1, 0.1, 0.1, (MovieFrame(0, 0.1, 0.2),))
    only = ClipResult("c", 26.0, 0.8, (FrameResult(2, 25.5, 0.75),), movie=score)
    rows = whole(clips=(only,)).to_csv().splitlines()
    assert rows[1:] == ["c,0,,,0.1,0.2", "c,2,25.5,0.75,,"]

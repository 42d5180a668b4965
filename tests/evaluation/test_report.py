"""The HTML report: one file, with everything in it, of the right pixels."""

import base64
import math
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from d3dnet.datasets.benchmarks import make_lr
from d3dnet.datasets.imresize import imresize
from d3dnet.datasets.luma import luma
from d3dnet.evaluation.evaluate import ClipFrames
from d3dnet.evaluation.report import clip_pictures, html_report, psnr_drawing
from d3dnet.evaluation.results import ClipResult, EvaluationResult, FrameResult
from d3dnet.evaluation.upscalers import rgb_from_luma
from d3dnet.network.complexity import Complexity


def clip_frames(kind: str = "rgb", with_lr: bool = True) -> ClipFrames:
    """Three frames of 120x160 with detail at the bottom right; what is not bicubic is a result."""
    rng = np.random.default_rng(0)
    hr = np.full((3, 120, 160, 3), 90, np.uint8)
    hr[:, 100:, 120:] = rng.integers(0, 256, (3, 20, 40, 3))
    if kind == "rgb":
        sr = 255 - hr
    else:
        sr = np.floor(255 - luma(hr)).astype(np.uint8)
        sr = sr if kind == "luma" else (sr / 255).astype(np.float32)
    return ClipFrames("city", range(4, 7), list(sr), hr, make_lr(hr, "uint8") if with_lr else None)


def result(clips: int = 2, name: str = "city") -> EvaluationResult:
    frames = tuple(FrameResult(i, 24 + i / 4, 0.7) for i in range(2, 6))
    made = tuple(ClipResult(f"{name}{n}", 25.0, 0.7, frames) for n in range(clips))
    return EvaluationResult(
        "Vid4", "d3dnet", "our <network>", "sequence", 25.0, 0.7, made, ("a note & more",),
        complexity=Complexity(2_579_941, 145_200_000_000), seconds_per_frame=0.25,
    )  # fmt: skip


class Document(HTMLParser):
    """Collects tags, text, and what is referred to; complains of tags that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


class TestDocument:
    def test_it_refers_to_nothing_outside_itself(self):
        text = html_report(result(), [clip_pictures(clip_frames(), "result")])
        document = Document(text)
        assert len(document.references) == 7  # four crops and three profiles
        assert all(r.startswith("data:image/png;base64,") for r in document.references)
        assert not {"script", "link", "iframe", "object"} & set(document.tags)
        assert "url(" not in text and "@import" not in text and "http" not in text

    def test_the_table_has_our_rows_and_the_published_ones(self):
        text = " ".join(Document(html_report(result())).text.split())
        assert "PSNR SSIM Mparams GMACs s/frame" in text
        assert "mean our <network> (sequence) 25.000 0.7000 2.58 145.2 0.250" in text
        assert "published D3Dnet 26.520 0.7990 2.58 408.8" in text
        assert "a note & more" in text and "GMACs are for one 1280x720 frame" in text

    def test_names_are_escaped(self):
        text = html_report(result(name='<b>"x"</b>'))
        assert "<b>&quot;" not in text and '<b>"x"' not in text
        assert '<b>"x"</b>0' in Document(text).text


class TestDrawing:
    def test_every_frame_is_a_point_at_the_height_of_its_psnr(self):
        text = psnr_drawing(result(1).clips)
        points = [tuple(map(float, m)) for m in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', text)]
        assert len(points) == 4
        across, down = np.diff(points, axis=0).T
        assert (across > 0).all() and np.ptp(across) < 0.11
        assert (down < 0).all() and np.ptp(down) < 0.11  # higher PSNR, higher up
        # The scale: the distance of two labelled lines against that of two frames.
        levels = re.findall(r'y1="([\d.]+)".*?>([\d.]+)</text>', text)
        (y_0, level_0), *_, (y_1, level_1) = [(float(y), float(level)) for y, level in levels]
        assert down.mean() / 0.25 == pytest.approx((y_1 - y_0) / (level_1 - level_0), rel=0.01)

    def test_each_clip_has_a_line_and_a_name_as_far_as_colours_go(self):
        text = psnr_drawing(result(9).clips)
        assert text.count("<polyline") == 8 and "The first 8 of 9 clips" in text
        assert psnr_drawing(result(3).clips).count("<polyline") == 3

    def test_one_frame_is_drawn_and_infinity_is_left_out(self):
        one = ClipResult("a", 30.0, 0.9, (FrameResult(3, 30.0, 0.9), FrameResult(4, math.inf, 1)))
        assert psnr_drawing([one]).count("<circle") == 1
        equal = ClipResult("a", math.inf, 1, (FrameResult(3, math.inf, 1),))
        assert "no finite PSNR" in psnr_drawing([equal])


class TestPictures:
    def test_crops_are_cut_where_bicubic_is_worst_in_the_middle_frame(self):
        frames = clip_frames()
        pictures = clip_pictures(frames, "ours")
        assert pictures.frame == 5
        crops = dict(pictures.crops)
        assert list(crops) == ["low resolution", "bicubic", "ours", "ground truth"]
        at = np.s_[24:120, 32:160]  # the window that reaches the detail, at the last place
        assert np.array_equal(crops["ground truth"], frames.hr[1][at])
        assert np.array_equal(crops["ours"], frames.sr[1][at])
        assert np.array_equal(crops["bicubic"], imresize(frames.lr[1], 4)[at])
        assert np.array_equal(crops["low resolution"], frames.lr[1][6:30, 8:40])

    def test_profiles_are_one_row_of_luma_over_time(self):
        frames = clip_frames()
        pictures = clip_pictures(frames, "ours")
        profiles = dict(pictures.profiles)
        rows = {
            "ground truth": frames.hr,
            "ours": np.stack(frames.sr),
            "bicubic": np.stack([imresize(frame, 4) for frame in frames.lr]),
        }
        for caption, clip in rows.items():
            expected = np.floor(luma(clip)[:, pictures.row] + 0.5)
            assert np.array_equal(profiles[caption], expected), caption

    @pytest.mark.parametrize("kind", ["luma", "network"])
    def test_luma_results_get_the_chroma_of_bicubic(self, kind):
        frames = clip_frames(kind)
        crops = dict(clip_pictures(frames, "ours").crops)
        y = frames.sr[1] / 255 if kind == "luma" else frames.sr[1]
        assert np.array_equal(crops["ours"], rgb_from_luma(y, frames.lr[1])[24:120, 32:160])

    def test_without_low_resolution_frames_they_are_made(self):
        frames = clip_frames(with_lr=False)
        crops = dict(clip_pictures(frames, "ours").crops)
        low = imresize(frames.hr[1], 0.25)
        assert np.array_equal(crops["low resolution"], low[6:30, 8:40])

    def test_frames_smaller_than_the_crop_are_shown_whole(self):
        frames = clip_frames()
        small = ClipFrames("a", range(1), [frames.sr[0][:40, :48]], frames.hr[:1, :42, :50])
        pictures = clip_pictures(small, "ours")
        crops = dict(pictures.crops)
        assert crops["ground truth"].shape == (40, 48, 3)
        assert crops["low resolution"].shape == (10, 12, 3)
        assert all(image.shape == (1, 48) for _, image in pictures.profiles)

    def test_embedded_pictures_are_the_pixels_without_loss(self):
        pictures = clip_pictures(clip_frames(), "ours")
        references = Document(html_report(result(), [pictures])).references
        images = [image for _, image in (*pictures.crops, *pictures.profiles)]
        for reference, expected in zip(references, images, strict=True):
            data = np.frombuffer(base64.b64decode(reference.partition(",")[2]), np.uint8)
            decoded = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
            found = decoded[..., ::-1] if decoded.ndim == 3 else decoded
            assert np.array_equal(found, expected)

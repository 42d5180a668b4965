"""Results of an evaluation: per frame, per clip and per set, as a table, JSON and CSV."""

import csv
import io
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from d3dnet.evaluation.published import PUBLISHED, PUBLISHED_COST, PUBLISHED_MOVIE

if TYPE_CHECKING:
    from d3dnet.evaluation.movie_index import MovieScore
    from d3dnet.network.complexity import Complexity


@dataclass(frozen=True)
class FrameResult:
    """One scored frame; ``index`` counts from 0 in the clip."""

    index: int
    psnr: float
    ssim: float


@dataclass(frozen=True)
class ClipResult:
    """One clip: means over its scored frames.

    Attributes:
        name: of the clip.
        psnr: dB.
        ssim: at most 1.
        frames: the scored frames.
        lr: where the low-resolution frames came from; None for ready frames.
        seconds_per_frame: what super-resolving took; None for ready frames.
        movie: MOVIE of the clip, where it was asked for.
        tof: difference of optical flows in pixels, where it was asked for.
    """

    name: str
    psnr: float
    ssim: float
    frames: tuple[FrameResult, ...]
    lr: str | None = None
    seconds_per_frame: float | None = None
    movie: "MovieScore | None" = None
    tof: float | None = None


@dataclass(frozen=True)
class EvaluationResult:
    """A set: means over its clips, and notes on what keeps it from comparing with tables.

    Attributes:
        movie, t_movie: means of the clips' MOVIE and T-MOVIE, not multiplied by 1000.
        range_compressed: MOVIE is of luma prepared as for the published figures; None without it.
        tof: mean of the clips' difference of optical flows, in pixels.
        seconds_per_frame: mean of what super-resolving took.
        complexity: of the network, in the mode it ran in.
    """

    dataset: str
    protocol: str
    model: str
    mode: str | None
    psnr: float
    ssim: float
    clips: tuple[ClipResult, ...]
    notes: tuple[str, ...] = ()
    movie: float | None = None
    t_movie: float | None = None
    range_compressed: bool | None = None
    tof: float | None = None
    seconds_per_frame: float | None = None
    complexity: "Complexity | None" = None

    @property
    def label(self) -> str:
        """The model, and the mode where it has one."""
        return self.model if self.mode is None else f"{self.model} ({self.mode})"

    def to_json(self) -> str:
        """Everything, as indented JSON."""
        return json.dumps(asdict(self), indent=2)

    def to_csv(self) -> str:
        """A line for each scored frame: clip, frame (from 0), PSNR, SSIM.

        With MOVIE also Spatial MOVIE and T-MOVIE, empty but at the frames where it is evaluated.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        temporal = ["spatial_movie", "t_movie"] if self.movie is not None else []
        writer.writerow(["clip", "frame", "psnr", "ssim", *temporal])
        for clip in self.clips:
            scores = {frame.index: [frame.psnr, frame.ssim] for frame in clip.frames}
            evaluated = clip.movie.frames if clip.movie else ()
            movies = {frame.index: [frame.spatial, frame.temporal] for frame in evaluated}
            for index in sorted({*scores, *movies}):
                cells = scores.get(index, ["", ""]) + movies.get(index, [""] * len(temporal))
                writer.writerow([clip.name, index, *cells])
        return text.getvalue()

    def rows(self) -> "list[TableRow]":
        """Rows of clips, the set's mean, and the published rows of the same protocol."""
        rows = [
            TableRow(
                clip.name,
                clip.psnr,
                clip.ssim,
                t_movie=1000 * clip.movie.temporal if clip.movie else None,
                movie=1000 * clip.movie.movie if clip.movie else None,
                tof=clip.tof,
                seconds=clip.seconds_per_frame,
            )
            for clip in self.clips
        ]
        rows.append(
            TableRow(
                f"mean: {self.label}",
                self.psnr,
                self.ssim,
                t_movie=self.t_movie and 1000 * self.t_movie,
                movie=self.movie and 1000 * self.movie,
                tof=self.tof,
                parameters=self.complexity.parameters / 1e6 if self.complexity else None,
                macs=self.complexity.macs / 1e9 if self.complexity else None,
                seconds=self.seconds_per_frame,
            )
        )
        key = (self.protocol, self.dataset)
        # Published MOVIE is of luma of compressed range, and stands beside nothing else.
        movies = PUBLISHED_MOVIE.get(key, {}) if self.range_compressed else {}
        for method, scores in PUBLISHED.get(key, {}).items():
            t_movie, movie = movies.get(method, (None, None))
            parameters, macs = PUBLISHED_COST.get(method, (None, None))
            rows.append(
                TableRow(
                    f"published: {method}",
                    *scores,
                    t_movie=t_movie,
                    movie=movie,
                    parameters=parameters,
                    macs=macs,
                )
            )
        return rows

    def columns(self) -> "tuple[TableColumn, ...]":
        """PSNR and SSIM, and what was measured besides."""
        shown = {
            "psnr": True,
            "ssim": True,
            "t_movie": self.movie is not None,
            "movie": self.movie is not None,
            "tof": self.tof is not None,
            "parameters": self.complexity is not None,
            "macs": self.complexity is not None,
            "seconds": self.complexity is not None,
        }
        return tuple(column for column in COLUMNS if shown[column.name])

    def remarks(self) -> list[str]:
        """The notes, and what the columns mean."""
        remarks = list(self.notes)
        if self.movie is not None:
            if self.range_compressed:
                kind = "of luma of compressed range, as published"
            else:
                kind = "of luma as it is, which does not compare with published figures"
            remarks.append(f"T-MOVIE and MOVIE are x 1000, {kind}; lower is better")
        if self.tof is not None:
            remarks.append("tOF is in pixels; lower is better")
        if self.complexity is not None:
            size = f"{self.complexity.width}x{self.complexity.height}"
            remarks.append(
                f"GMACs are for one {size} frame, {self.mode} mode, deformable convolutions "
                "counted; the published figure of D3Dnet leaves them out"
            )
        return remarks

    def table(self) -> str:
        """`rows` as text."""
        title = f"{self.dataset}, protocol {self.protocol}"
        rows, columns = self.rows(), self.columns()
        width = max(len(title), *(len(row.name) for row in rows))
        lines = ["  ".join([f"{title:{width}}", *(f"{c.title:>{c.width}}" for c in columns)])]
        for row in rows:
            cells = [f"{column.text(row):>{column.width}}" for column in columns]
            lines.append("  ".join([f"{row.name:{width}}", *cells]).rstrip())
        return "\n".join(lines + [f"note: {remark}" for remark in self.remarks()])


@dataclass(frozen=True)
class TableRow:
    """A row of the table; what is None is not known.

    ``t_movie`` and ``movie`` are x 1000, ``parameters`` in millions, ``macs`` in G, ``seconds`` per
    frame, ``tof`` in pixels.
    """

    name: str
    psnr: float
    ssim: float
    t_movie: float | None = None
    movie: float | None = None
    tof: float | None = None
    parameters: float | None = None
    macs: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class TableColumn:
    """A column of the table: the field of `TableRow`, the heading, the decimals and the width."""

    name: str
    title: str
    decimals: int
    width: int

    def text(self, row: TableRow) -> str:
        """The row's cell; empty where the value is not known."""
        value = getattr(row, self.name)
        return "" if value is None else f"{value:.{self.decimals}f}"


COLUMNS = (
    TableColumn("psnr", "PSNR", 3, 7),
    TableColumn("ssim", "SSIM", 4, 6),
    TableColumn("t_movie", "T-MOVIE", 2, 7),
    TableColumn("movie", "MOVIE", 2, 5),
    TableColumn("tof", "tOF", 3, 6),
    TableColumn("parameters", "Mparams", 2, 7),
    TableColumn("macs", "GMACs", 1, 7),
    TableColumn("seconds", "s/frame", 3, 7),
)

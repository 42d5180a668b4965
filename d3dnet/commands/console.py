"""How a person, or a program, is told what happens: a bar, plain lines, or JSON."""

import contextlib
import json
import sys
import threading
import time
from dataclasses import replace
from typing import Any

EVERY = 10.0  # seconds between plain lines of progress; of JSON, a twentieth


class Console:
    """What happens, to stderr and stdout.

    One bar on stderr where that is a terminal, else a line now and then; the comparison and the
    path of the result on stdout. As JSON, one object a line on stdout, and nothing else there.

    Args:
        as_json: for programs; quiet: no progress and no comparison; verbose: also every segment.

    Attributes:
        warnings: how many there were.
    """

    def __init__(
        self, *, as_json: bool = False, quiet: bool = False, verbose: bool = False
    ) -> None:
        self.warnings = 0
        self._json = as_json
        self._quiet = quiet
        self._verbose = verbose
        self._bar: Any = None
        self._last: Any = None  # progress
        self._begun = self._told = 0.0
        self._before = 0  # frames that earlier runs made
        self._videos: dict[str, Any] = {}  # progress of those that are made at once
        self._lock = threading.RLock()

    def show(self, event: Any, video: str = "") -> None:
        """Tell of an event of `job.events`; `video`: which, of several at once. From threads."""
        with self._lock:
            self._show(event, video)

    def _show(self, event: Any, video: str) -> None:
        kind = type(event).__name__
        if kind == "Progress":
            self._videos[video] = event
            frames = [one.frames or 0 for one in self._videos.values()]
            done = sum(one.done for one in self._videos.values())
            self._progress(replace(event, done=done, frames=sum(frames) if all(frames) else None))
            return
        if kind in ("Done", "WorkKept", "ShareDone"):
            self._end_progress()
        if kind == "Start":
            now, before = time.monotonic(), self._before if video else 0
            self._begun = self._begun or now if video else now
            self._told = 0.0 if self._json else now
            self._before = before + event.done
        if self._json:
            from d3dnet.job.events import as_json

            self._print_json(as_json(event) | ({"input": video} if video else {}))
        elif kind == "Start":
            plan = ", ".join(f"{name} {value}" for name, value in event.plan.items())
            self._verbosely(f"{event.input} to {event.width}×{event.height}; {plan}")
            if event.done and not self._quiet:
                self._say(f"{event.done} frames are finished already, in {event.work}")
        elif kind == "SegmentDone":
            last = event.first + event.frames - 1
            self._verbosely(f"segment {event.segment} is finished: frames {event.first} to {last}")
        elif kind == "WorkKept":
            self._say(
                f"{event.frames} finished frames are kept in {event.work}; "
                "the same command goes on behind them"
            )
        elif kind == "ShareDone":
            self._say(
                f"share {event.share}/{event.shares} is complete: {event.frames} frames in "
                f"{event.work}; with all shares, d3dnet join makes the result"
            )
        elif kind == "Done":
            if not self._quiet:
                print(event.audit.table())
            print(event.output)

    def warn(self, message: Warning | str, *_: object, **__: object) -> None:
        """In the place of `warnings.showwarning`."""
        text = " ".join(str(message).split())
        with self._lock:
            self.warnings += 1
            if self._json:
                self._print_json({"event": "warning", "message": text})
            else:
                self._say(f"warning: {text}")

    def complain(self, message: str, code: int) -> None:
        """Say what is at fault; `code` is what the program will exit with."""
        self.close()
        if self._json:
            self._print_json({"event": "error", "message": message, "code": code})
        self._say(message)

    def close(self) -> None:
        """Leave the line of the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _progress(self, event: Any) -> None:
        self._last = event
        now = time.monotonic()
        if self._json:
            if now - self._told >= EVERY / 20:
                self._told = now
                self._print_json(self._numbers())
        elif self._quiet:
            return
        elif sys.stderr.isatty():
            if self._bar is None:
                from tqdm import tqdm

                self._bar = tqdm(
                    desc="upscaling", unit=" frames", initial=self._before, dynamic_ncols=True
                )
            self._bar.total = self._total()
            self._bar.set_postfix_str(f"segment {event.segment}", refresh=False)
            self._bar.update(event.done - self._bar.n)
        elif now - self._told >= EVERY:
            self._told = now
            self._say(self._line())

    def _end_progress(self) -> None:
        if self._last is not None and self._json:
            self._print_json(self._numbers())
        elif self._last is not None and not self._quiet and self._bar is None:
            self._say(self._line())
        self._last = None
        self.close()

    def _total(self) -> int | None:
        # The container's count is an estimate: never show more than all.
        return max(self._last.done, self._last.frames) if self._last.frames else None

    def _numbers(self) -> dict[str, Any]:
        """Progress, with frames per second of this run and the seconds that are left."""
        event, total = self._last, self._total()
        speed = (event.done - self._before) / max(1e-6, time.monotonic() - self._begun)
        left = None if total is None else round((total - event.done) / max(1e-9, speed), 1)
        return {
            "event": "progress",
            "done": event.done,
            "frames": total,
            "segment": event.segment,
            "fps": round(speed, 3),
            "seconds_left": left,
        }

    def _line(self) -> str:
        numbers = self._numbers()
        frames, left = numbers["frames"], numbers["seconds_left"]
        of = "" if frames is None else f"/{frames}"
        text = f"{numbers['done']}{of} frames, {numbers['fps']:.2f} frames/s"
        if left is not None:
            minutes, seconds = divmod(round(left), 60)
            text += f", {minutes // 60}:{minutes % 60:02}:{seconds:02} left"
        return f"{text}, segment {numbers['segment']}"

    def _verbosely(self, text: str) -> None:
        if self._verbose:
            self._say(text)

    def _say(self, text: str) -> None:
        line = f"d3dnet: {text}"
        with contextlib.suppress(OSError, ValueError):  # nobody may be there to be told
            if self._bar is not None:
                self._bar.write(line, file=sys.stderr)
            else:
                print(line, file=sys.stderr)

    @staticmethod
    def _print_json(values: dict[str, Any]) -> None:
        print(json.dumps(values), flush=True)

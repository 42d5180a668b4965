"""What a run needs does not depend on how long its video is."""

import os
import subprocess
import sys

from tests.video.clips import BUNDLED, ffmpeg

RUN = """
import resource, sys
from d3dnet.job.upscale import upscale_video
upscale_video(*sys.argv[1:], model="bicubic", preset="ultrafast")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_memory(path, frames: int) -> int:
    """KiB that a process holds at most while it enlarges so many small frames with their sound."""
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25"),
        *("-f", "lavfi", "-i", f"sine=440:r=8000:d={frames / 25},asetnsamples=10"),
        *("-frames:v", frames, "-c:v", "mpeg4", "-q:v", 2, "-c:a", "pcm_s16le", path),
    )
    command = [sys.executable, "-c", RUN, path, path.with_name(f"large-{path.name}")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FFMPEG": BUNDLED.path}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def test_peak_memory_of_a_hundred_times_longer_video_is_not_four_per_cent_more(tmp_path):
    short = peak_memory(tmp_path / "short.mkv", 15)  # more than all queues hold
    long = peak_memory(tmp_path / "long.mkv", 1500)
    assert long < 1.04 * short

"""Make data/sample.mp4, the clip that `make upscale` shows: a slow camera over a photograph.

Every frame is the photograph seen through a camera that pans, zooms and turns by fractions of a
pixel, filtered as MATLAB's imresize does when it makes a picture four times smaller. The sound is
three soft tones. Photograph: scikit-image's `astronaut` (NASA, public domain).

    python scripts/make_sample_clip.py [data/sample.mp4]

Prints the path, the number of frames and the size in bytes.
"""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from skimage import data

from d3dnet.datasets.imresize import imresize
from d3dnet.video.ffmpeg import find_program

FRAMES, RATE = 72, 24
WIDTH, HEIGHT = 160, 120
SCALE = 4  # frames are drawn this much larger, then filtered down


def camera(progress: float) -> np.ndarray:
    """The 2×3 affine map from a frame, drawn ×4, to the photograph; `progress` runs over [0, 1]."""
    ease = progress * progress * (3 - 2 * progress)
    zoom = (2.9 - 0.7 * ease) / SCALE  # pixels of the photograph per pixel drawn
    angle = np.deg2rad(-1.5 + 3 * ease)
    centre = np.array([246 - 8 * ease, 176 - 18 * ease + 4 * np.sin(2 * np.pi * progress)])
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([SCALE * WIDTH - 1, SCALE * HEIGHT - 1]) / 2
    return np.column_stack([turn, centre - turn @ middle])


def frame(photograph: np.ndarray, progress: float) -> np.ndarray:
    """One frame: (HEIGHT, WIDTH, 3) uint8 RGB."""
    drawn = cv2.warpAffine(
        photograph,
        camera(progress),
        (SCALE * WIDTH, SCALE * HEIGHT),
        flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return imresize(drawn, 1 / SCALE)


def main(path: Path) -> None:
    photograph = data.astronaut()
    frames = [frame(photograph, index / (FRAMES - 1)) for index in range(FRAMES)]
    seconds = FRAMES / RATE
    tones = "+".join(f"0.06*sin(2*PI*{pitch}*t)" for pitch in (220, 277.18, 329.63))
    envelope = f"min(1,2*t)*min(1,2*({seconds}-t))"
    command = [find_program().path, "-v", "error", "-y"]
    command += ["-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{WIDTH}x{HEIGHT}"]
    command += ["-framerate", str(RATE), "-i", "pipe:0"]
    command += ["-f", "lavfi", "-i", f"aevalsrc='({tones})*{envelope}':d={seconds}:s=48000"]
    command += ["-vf", "scale=out_color_matrix=bt601:out_range=tv:flags=accurate_rnd+bicubic"]
    command += ["-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "veryslow", "-crf", "6"]
    command += ["-colorspace", "smpte170m", "-color_primaries", "bt709", "-color_trc", "bt709"]
    command += ["-color_range", "tv", "-c:a", "aac", "-b:a", "48k", "-movflags", "+faststart"]
    command += ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact", str(path)]
    subprocess.run(command, input=b"".join(image.tobytes() for image in frames), check=True)
    print(f"{path}: {FRAMES} frames of {WIDTH}x{HEIGHT}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "data/sample.mp4"))

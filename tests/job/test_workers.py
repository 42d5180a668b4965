"""Segments that several processes make at once, here or on a Ray cluster: the frames of one run."""

import os
import sys
import threading
from dataclasses import replace

import pytest

from d3dnet.cli import main
from d3dnet.errors import ClusterError, InputError, OtherWorkError, OutputError, WorkerError
from d3dnet.job import workers
from d3dnet.job.events import Done, SegmentDone, Start
from d3dnet.job.ledger import Ledger, made_of
from d3dnet.job.local_workers import Devices, workers_of
from d3dnet.job.ray_workers import Cluster
from d3dnet.job.segments import Segment
from d3dnet.job.upscale import upscale_video
from d3dnet.job.workers import Run, answers, make_run
from tests.job.resumable import Mortal, frames_of, three_shots, upscale
from tests.job.test_shares import same


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """On the number of threads the last bits of results may depend."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return three_shots(tmp_path_factory.mktemp("source") / "in.mp4")


@pytest.fixture(scope="module")
def undisturbed(clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    upscale(clip, folder / "out.mkv", folder / "seen")
    return frames_of(folder / "out.mkv")


@pytest.fixture(scope="module")
def devices():
    with Devices(["cpu", "cpu"]) as devices:
        yield devices


@pytest.fixture(scope="module")
def cluster():
    """Two workers of a Ray cluster of this machine, in processes of their own."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'd3dnet[ray]'")
    options = {"num_cpus": 2, "include_dashboard": False, "log_to_driver": False}
    ray.init("local", object_store_memory=100 * 2**20, **options)
    with Cluster("local", "cpu", cpus_per_task=1) as cluster:
        yield cluster
    ray.shutdown()


@pytest.fixture(params=["devices", "cluster"])
def spreading(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def lives(tmp_path):
    (tmp_path / "lives").mkdir()
    return tmp_path / "lives"


def test_workers_give_the_frames_of_one_run_though_one_dies(
    clip, undisturbed, tmp_path, spreading, lives
):
    output, events = tmp_path / "out.mkv", []
    (lives / "1.life").touch()
    options = {"model": Mortal(lives, together=2), "codec": "ffv1", "workers": spreading}
    upscale_video(clip, output, watch=events.append, **options)
    assert not (lives / "1.life").exists()
    assert len(list(lives.glob("*.seen"))) >= 2
    assert same(frames_of(output), undisturbed)
    finished = [event for event in events if isinstance(event, SegmentDone)]
    assert sorted((event.first, event.frames) for event in finished) == [
        (0, 45),
        (45, 40),
        (85, 45),
        (130, 20),
    ]
    assert isinstance(events[0], Start) and isinstance(events[-1], Done)
    assert sorted(os.listdir(tmp_path)) == ["lives", "out.mkv"]


def test_a_share_can_be_made_by_workers_and_goes_on_after_a_break(
    clip, undisturbed, tmp_path, devices, lives
):
    output = tmp_path / "out.mkv"

    def watch(event):
        if isinstance(event, SegmentDone):
            raise KeyboardInterrupt

    options = {"model": Mortal(lives), "codec": "ffv1"}
    with pytest.raises(KeyboardInterrupt):
        upscale_video(clip, output, segment="1/2", workers=devices, watch=watch, **options)
    events = []
    options["watch"] = events.append
    upscale_video(clip, output, segment="1/2", workers=devices, **options)
    made = sum(event.frames for event in events if isinstance(event, SegmentDone))
    assert made == 85 - events[0].done < 85
    upscale_video(clip, output, segment="2/2", workers=devices, **options)
    upscale_video(clip, output, segment="join", **options)
    assert same(frames_of(output), undisturbed)


@pytest.mark.parametrize("words", [["--device", "cpu,cpu"], ["--ray", "local"]])
def test_several_videos_are_one_list_of_tasks(clip, tmp_path, words, capsys, request):
    if "--ray" in words:
        request.getfixturevalue("cluster")
        words = [*words, "--cpus-per-task", "1", "--device", "cpu"]
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for name in ("a.mkv", "b.mp4"):
        os.symlink(clip, tmp_path / "in" / name)
    (tmp_path / "in" / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "in" / "notes.txt").touch()
    arguments = ["upscale", str(tmp_path / "in"), str(tmp_path / "out"), "--model", "bicubic"]
    assert main([*arguments, "--frames", "60", *words]) == 1
    out, err = capsys.readouterr()
    assert "broken.mp4: not a readable video" in err and " 120/120 frames" in err
    assert sorted(os.listdir(tmp_path / "out")) == ["a.mkv", "b.mp4"]
    assert {str(tmp_path / "out" / name) for name in ("a.mkv", "b.mp4")} < set(out.splitlines())
    for name in ("a.mkv", "b.mp4"):
        assert len(frames_of(tmp_path / "out" / name)) == 60


def test_ctrl_c_ends_all_videos_that_are_made_at_once(clip, tmp_path, monkeypatch, capsys):
    (tmp_path / "out").mkdir()
    waited = threading.Event()

    class Busy(Devices):
        def start(self, *_):
            return None

        def wait(self, tasks):
            waited.set()
            return super().wait(tasks)

    def interrupted(*_, **__):
        assert waited.wait(60)
        raise KeyboardInterrupt

    for name in ("a.mkv", "b.mkv"):
        os.symlink(clip, tmp_path / name)
    monkeypatch.setattr("d3dnet.job.local_workers.Devices", Busy)
    monkeypatch.setattr("concurrent.futures.Future.result", interrupted)
    arguments = ["upscale", *(str(tmp_path / name) for name in ("a.mkv", "b.mkv"))]
    words = ["--model", "bicubic", "--device", "cpu,cpu"]
    assert main([*arguments, str(tmp_path / "out"), *words]) == 4
    assert not list((tmp_path / "out").glob("*.mkv"))


def test_several_devices_are_named_in_one_word():
    with workers_of("cuda:0,1,3", None) as found:
        assert [process.device for process in found._free] == ["cuda:0", "cuda:1", "cuda:3"]
    with workers_of("cuda:1", None) as found:
        assert found is None


@pytest.fixture
def job(clip, tmp_path):
    """A job, and what it is made of, as workers are given them."""
    given = {}

    def seen(opened, *rest):
        job = opened.job
        made = made_of(job, opened.source, opened.network)
        given.update(job=job, made=made, ledger=opened.ledger)
        (tmp_path / "kept").mkdir()
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("d3dnet.job.upscale._make", seen)
        upscale_video(clip, tmp_path / "out.mkv", model="bicubic")
    return {**given, "job": replace(given["job"], folder=tmp_path / "kept")}


def test_a_machine_that_would_make_other_frames_is_refused(job):
    begin = Segment(0, 0, 0, 0, 0)
    made = {**job["made"], "ffmpeg": "4.0"}
    (message,) = answers(make_run, "cpu", (job["job"], made, begin, 0))
    assert isinstance(message["error"], OtherWorkError)
    assert "ffmpeg: 4.0 there" in str(message["error"])


def test_storage_that_is_not_shared_is_named(job, monkeypatch):
    begin = Segment(0, 0, 0, 0, 0)
    elsewhere = replace(job["job"], folder=job["job"].folder / "nowhere")
    (message,) = answers(make_run, "cpu", (elsewhere, job["made"], begin, 0))
    assert isinstance(message["error"], OutputError)
    assert "storage that all machines share" in str(message["error"])
    gone = replace(job["job"], input="/nothing.mp4")
    (message,) = answers(make_run, "cpu", (gone, job["made"], begin, 0))
    assert isinstance(message["error"], InputError)


def test_a_segment_that_the_driver_does_not_see_ends_the_run(job, monkeypatch):
    monkeypatch.setattr(workers, "VISIBLE_WITHIN", 0)
    begin = Segment(0, 0, 0, 0, 0)
    messages = list(answers(make_run, "cpu", (job["job"], job["made"], begin, 0)))
    (record,) = [message["record"] for message in messages if "record" in message]
    assert record["frames"] == 45 and messages[-1] == {"segment": 0, "made": 45}
    elsewhere = replace(job["job"], folder=job["job"].folder / "nowhere")
    ledger = Ledger(elsewhere, type("Journal", (), {"records": []})())
    with pytest.raises(WorkerError, match=r"not seen here.*--work-dir"):
        list(workers._entered(record, ledger, elsewhere, Run(begin, 0)))


def test_a_segment_at_which_workers_die_again_and_again_ends_the_run(job):
    run = Run(Segment(3, 0, 0, 0, 0), 5)
    for deaths in (1, 2):
        (run,) = workers._rest(run, job["ledger"], job["job"])
        assert (run.begin.number, run.last, run.deaths) == (3, 5, deaths)
    with pytest.raises(WorkerError, match="segment 3 died 3 times; what is finished is kept"):
        list(workers._rest(run, job["ledger"], job["job"]))


def test_without_ray_one_line_names_the_extra(clip, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["upscale", str(clip), str(tmp_path / "out.mkv"), "--ray", "auto"]) == 3
    assert capsys.readouterr().err == (
        "d3dnet: --ray: Ray is not installed: pip install 'd3dnet[ray]'\n"
    )


def test_a_cluster_without_place_for_a_task_says_so(cluster):
    with pytest.raises(ClusterError, match="no machine there has 64 CPUs and 0 GPUs"):
        Cluster("auto", "cpu", cpus_per_task=64)

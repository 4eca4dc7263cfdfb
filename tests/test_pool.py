"""The ordered pool: every frame once, each segmenter in one thread at a time, an end that always comes."""

from __future__ import annotations

import random
import threading
from concurrent.futures import CancelledError
from fractions import Fraction

import numpy as np
import pytest

from streamseg.errors import InferenceError, PipelineStuckError
from streamseg.frame import Colour, Frame, Origin
from streamseg.segment import load_segmenter, pool
from streamseg.segment.pool import Pool
from streamseg.segment.result import Matte
from tests import networks


def picture(index, seed=0):
    planes = np.random.default_rng(seed).integers(0, 256, (96, 64), dtype=np.uint8)
    return Frame(planes, index, Fraction(1, 30), index, 0.0, Colour(), Origin("noise", (64, 64)))


class Stub:
    """Answers with the frame's index, after `gate` of that frame is open; notes who uses it at once."""

    class_names = ("person",)

    def __init__(self, gates=None):
        self.gates = gates or {}
        self.busy = threading.Lock()
        self.seen = []
        self.thresholds = None

    def __call__(self, frame):
        assert self.busy.acquire(blocking=False), "two threads in one segmenter"
        try:
            if frame.index in self.gates:
                assert self.gates[frame.index].wait(60)
            self.seen.append(frame.index)
            if frame.index == 666:
                raise InferenceError("net.onnx failed on a frame")
            return Matte(np.full((1, 1), frame.index, np.float32), (64, 64))
        finally:
            self.busy.release()

    def retune(self, *, confidence, iou, classes=None):
        self.thresholds = (confidence, iou)

    def describe(self):
        return {"model": "stub"}


@pytest.fixture
def pools():
    made = []

    def make(*segmenters):
        made.append(Pool(segmenters))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_every_frame_is_segmented_once_and_results_keep_their_order(pools):
    gates = {index: threading.Event() for index in range(0, 40, 2)}
    stubs = [Stub(gates) for _ in range(4)]
    together = pools(*stubs)
    waiting = [together.submit(picture(index)) for index in range(40)]
    keys = list(gates)
    random.Random(0).shuffle(keys)
    for key in keys:  # the frames are done out of order
        gates[key].set()
    assert [int(future.result(60).alpha[0, 0]) for future in waiting] == list(range(40))
    assert sorted(index for stub in stubs for index in stub.seen) == list(range(40))


def test_frames_are_under_way_side_by_side(pools):
    meeting = threading.Barrier(3)

    class Meets(Stub):
        def __call__(self, frame):
            meeting.wait(60)  # goes on only when three are here at once
            return super().__call__(frame)

    together = pools(Meets(), Meets(), Meets())
    for future in [together.submit(picture(index)) for index in range(3)]:
        future.result(60)


def test_a_failure_belongs_to_its_frame_and_the_others_go_on(pools):
    together = pools(Stub(), Stub())
    waiting = [together.submit(picture(index)) for index in (1, 666, 2, 3)]
    with pytest.raises(InferenceError, match="failed on a frame"):
        waiting[1].result(60)
    assert [int(waiting[place].result(60).alpha[0, 0]) for place in (0, 2, 3)] == [1, 2, 3]


def test_close_cancels_what_waits_and_finishes_what_is_under_way(pools):
    gate, started = threading.Event(), threading.Event()

    class Held(Stub):
        def __call__(self, frame):
            started.set()
            return super().__call__(frame)

    together = pools(Held({0: gate}))
    first, second = together.submit(picture(0)), together.submit(picture(1))
    assert started.wait(60)
    closing = threading.Thread(target=together.close)
    closing.start()
    with pytest.raises(CancelledError):
        second.result(60)
    gate.set()
    closing.join(60)
    assert int(first.result(0).alpha[0, 0]) == 0
    assert together.submit(picture(2)).cancelled()
    together.close()


def test_a_network_that_never_comes_back_is_an_error_not_a_hang(monkeypatch):
    monkeypatch.setattr(pool, "_CLOSE_TIMEOUT_S", 0.01)
    gate = threading.Event()
    together = Pool([Stub({0: gate})])
    future = together.submit(picture(0))
    while not future.running():
        threading.Event().wait(0.001)
    with pytest.raises(PipelineStuckError, match="1 of 1 networks"):
        together.close()
    gate.set()
    future.result(60)
    together.close()


def test_thresholds_go_to_all_and_the_report_counts_them(pools):
    stubs = [Stub(), Stub()]
    together = pools(*stubs)
    together.retune(confidence=0.5, iou=0.6)
    assert [stub.thresholds for stub in stubs] == [(0.5, 0.6)] * 2
    assert together.describe() == {"model": "stub", "sessions": 2}
    assert together.class_names == ("person",)


def test_real_networks_side_by_side_answer_as_one_alone(tmp_path, pools):
    path = networks.matte(tmp_path / "net.onnx")
    alone = load_segmenter(path, provider="cpu", threads=1)
    together = pools(*(load_segmenter(path, provider="cpu", threads=1) for _ in range(3)))
    frames = [picture(index, seed=index) for index in range(24)]
    waiting = [together.submit(frame) for frame in frames]
    for frame, future in zip(frames, waiting, strict=True):
        assert np.array_equal(future.result(60).alpha, alone(frame).alpha)

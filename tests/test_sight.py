"""Which frames the network looks at, and what is known of the others: a textured card moves over a textured wall."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from streamseg.app.answers import in_good_time
from streamseg.app.asking import Asking, CloseLook
from streamseg.app.keyframes import FileKeyframes, FixedPace, LiveKeyframes
from streamseg.app.moments import Moments, Seen
from streamseg.app.process import SeeAndPaint
from streamseg.app.sight import EveryFrame, Sight, TwoSights, Unseen
from streamseg.errors import InferenceError
from streamseg.frame import Colour, Frame, Origin, Output
from streamseg.segment.pool import Pool
from streamseg.segment.result import Matte
from streamseg.temporal import AutoInterval, StillScene

WIDTH, HEIGHT, RATE = 320, 180, 30
CARD = 80
_RANDOM = np.random.default_rng(7)
WALL = np.repeat(np.repeat(_RANDOM.integers(0, 120, (HEIGHT // 6, WIDTH // 5), np.uint8), 6, 0), 5, 1)
OTHER_WALL = np.repeat(np.repeat(_RANDOM.integers(100, 255, (HEIGHT // 10, WIDTH // 10), np.uint8), 10, 0), 10, 1)
PATTERN = np.repeat(np.repeat(_RANDOM.integers(140, 255, (CARD // 5, CARD // 5), np.uint8), 5, 0), 5, 1)


def left_of(index: int) -> int:
    return 20 + 3 * index


def picture(index: int, *, wall: NDArray[np.uint8] = WALL, left: int | None = None) -> Frame:
    planes = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
    planes[:HEIGHT] = wall
    x = left_of(index) if left is None else left
    planes[50 : 50 + CARD, x : x + CARD] = PATTERN
    return Frame(planes, index, Fraction(1, RATE), index, index / RATE, Colour(), Origin("card", (WIDTH, HEIGHT)))


def truth(x: int) -> NDArray[np.float32]:
    alpha = np.zeros((HEIGHT // 2, WIDTH // 2), np.float32)
    alpha[25 : 25 + CARD // 2, x // 2 : (x + CARD) // 2] = 1
    return cv2.blur(alpha, (3, 3))  # a network's edges are soft


class Network:
    """Knows where the card is, by its brightness; remembers what it was asked, and may be held or broken."""

    class_names: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.sizes: list[tuple[int, int]] = []
        self.broken = False
        self.go = threading.Event()
        self.go.set()
        self._came = threading.Condition()

    def was_asked(self, count: int) -> list[int]:
        """Of which frames, once it has been asked `count` times: a thread of its own asks it."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.asked) >= count, 60), self.asked
            return list(self.asked)

    def __call__(self, frame: Frame) -> Matte:
        self.sizes.append((frame.width, frame.height))
        with self._came:
            self.asked.append(frame.index)
            self._came.notify_all()
        assert self.go.wait(60)
        if self.broken:
            raise InferenceError("out of memory")
        middle = frame.y[60:120]
        columns = np.flatnonzero((middle == PATTERN[10:70, :1]).all(axis=0))
        return Matte(truth(int(columns[0])), (WIDTH, HEIGHT))

    def retune(self, *, confidence: float, iou: float, classes: object = None) -> None:
        raise AssertionError

    def describe(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def ask(network: Network) -> Iterator[Asking]:
    pool = Pool([network])
    yield Asking(pool)
    network.go.set()
    pool.close()


def overlap(seen: Seen, x: int) -> float:
    assert isinstance(seen.segmentation, Matte)
    found, wanted = seen.segmentation.alpha > 0.5, truth(x) > 0.5
    return float((found & wanted).sum() / (found | wanted).sum())


def through(sight: Sight, frames: Sequence[Frame]) -> list[Seen]:
    seen = [one for frame in frames for one in sight.see(frame)]
    return [*seen, *sight.finish()]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 9, 14])
@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("way", ["every", "keyframes:2", "keyframes:3", "keyframes:4 one side"])
def test_as_many_frames_come_as_were_given_and_each_matte_is_that_frames(
    way: str, ahead: int, count: int, ask: Asking, network: Network
) -> None:
    frames = [picture(index) for index in range(count)]
    if way == "every":
        sight: Sight = EveryFrame(ask, Moments(), ahead=ahead)
    else:
        both = "one" not in way
        sight = FileKeyframes(ask, Moments(), every=int(way[10]), both_sides=both, ahead=ahead)
    seen = through(sight, frames)
    assert [one.frame.index for one in seen] == list(range(count))
    assert [one.dt_s for one in seen[1:]] == pytest.approx([1 / RATE] * max(0, count - 1))
    assert min([overlap(one, left_of(one.frame.index)) for one in seen], default=1) > 0.9
    every = 1 if way == "every" else int(way[10])
    assert network.asked == list(range(0, count, every))


def test_a_matte_that_is_only_held_would_have_failed() -> None:
    held = Seen(picture(3), Matte(truth(left_of(0)), (WIDTH, HEIGHT)), 0.0, 0.0)
    assert overlap(held, left_of(3)) < 0.85


@pytest.mark.parametrize("cut_at", [3, 4, 5, 6])
def test_nothing_is_carried_across_a_cut(cut_at: int, ask: Asking, network: Network) -> None:
    frames = [picture(index) for index in range(cut_at)]
    frames += [picture(index, wall=OTHER_WALL, left=200) for index in range(cut_at, cut_at + 4)]
    seen = through(FileKeyframes(ask, Moments(), every=3, both_sides=True, ahead=1), frames)
    assert [one.frame.index for one in seen] == list(range(cut_at + 4))
    assert cut_at in network.asked
    assert seen[cut_at].dt_s == 0
    for one in seen:
        assert overlap(one, 200 if one.frame.index >= cut_at else left_of(one.frame.index)) > 0.9


def test_what_cannot_be_carried_is_looked_at_early(ask: Asking, network: Network) -> None:
    # The card jumps within a shot: the flow cannot follow.
    frames = [picture(0), picture(1, left=200), picture(2, left=203), picture(3, left=206)]
    seen = through(FileKeyframes(ask, Moments(at_cuts=False), every=4, both_sides=True, ahead=1), frames)
    assert 1 in network.asked
    assert [one.frame.index for one in seen] == [0, 1, 2, 3]
    assert overlap(seen[1], 200) == 1
    assert overlap(seen[2], 203) > 0.9


def test_a_file_gives_the_same_on_every_run(network: Network) -> None:
    frames = [picture(index) for index in range(20)]
    runs = []
    for workers in (1, 3):
        pool = Pool([network] * workers)
        seen = through(FileKeyframes(Asking(pool), Moments(), every=3, both_sides=True, ahead=workers), frames)
        pool.close()
        runs.append([one.segmentation.alpha for one in seen if isinstance(one.segmentation, Matte)])
    assert all(np.array_equal(*pair) for pair in zip(*runs, strict=True))


@pytest.mark.parametrize("keyframes", [False, True])
def test_the_network_is_spared_what_has_not_moved(keyframes: bool, ask: Asking, network: Network) -> None:
    frames = [picture(index, left=40) for index in range(30)] + [picture(index, left=80) for index in range(30, 40)]
    still = StillScene(0.5)
    sight: Sight = EveryFrame(ask, Moments(), still=still)
    if keyframes:
        sight = FileKeyframes(ask, Moments(), every=2, both_sides=True, still=still)
    seen = through(sight, frames)
    assert len([index for index in network.asked if index < 30]) <= 3
    assert 30 in network.asked
    assert all(overlap(one, 40 if one.frame.index < 30 else 80) > 0.99 for one in seen)


def live(ask: Asking, *, interval: int = 3, locked: bool = False, clock: Any = None) -> LiveKeyframes:
    options = {"clock": clock} if clock else {}
    return LiveKeyframes(ask, Moments(), pace=FixedPace(interval), took_s=lambda: 0.1, locked=locked, **options)


def finished(sight: LiveKeyframes) -> None:
    """Wait until the network has said what it was asked."""
    if sight._under_way is not None and sight._under_way.answer is not None:
        sight._under_way.answer.future.result(60)


def test_live_every_frame_comes_at_once_whatever_the_network_does(ask: Asking, network: Network) -> None:
    sight = live(ask)
    first = sight.see(picture(0))
    assert [one.frame.index for one in first] == [0]
    network.go.clear()
    for index in range(1, 10):
        (one,) = sight.see(picture(index))
        assert one.frame.index == index
        assert index > 5 or overlap(one, left_of(index)) > 0.85, "further than that the flow does not reach"
    assert network.was_asked(2) == [0, 3], "it is busy with one frame, and the others do not queue"
    network.go.set()
    finished(sight)
    (one,) = sight.see(picture(10))
    assert overlap(one, left_of(10)) > 0.9
    finished(sight)
    assert network.asked == [0, 3, 10]


def test_live_at_interval_one_every_frame_is_looked_at(ask: Asking, network: Network) -> None:
    sight = live(ask, interval=1)
    for index in range(5):
        (one,) = sight.see(picture(index))
        assert overlap(one, left_of(index)) == 1
    assert network.asked == [0, 1, 2, 3, 4]


def test_a_careful_run_waits_where_it_is_unsure(ask: Asking, network: Network) -> None:
    sight = LiveKeyframes(ask, Moments(at_cuts=False), pace=FixedPace(4), took_s=lambda: 0.1, careful=True)
    lefts = [20, 22, 24, 200, 203, 206, 40, 43]  # it jumps twice
    for index, left in enumerate(lefts):
        (one,) = sight.see(picture(index, left=left))
        assert one.frame.index == index
        assert overlap(one, left) > 0.9
    assert {0, 3, 6} <= set(network.asked)
    network.go.clear()
    gate = threading.Timer(0.3, network.go.set)
    gate.start()
    (one,) = sight.see(picture(8, left=150))
    assert overlap(one, 150) == 1, "it waited"
    gate.join()


def test_locked_pictures_wait_for_the_network_and_lose_none(ask: Asking, network: Network) -> None:
    now = [0.0]
    sight = live(ask, interval=2, locked=True, clock=lambda: now[0])
    seen: list[Seen] = []
    behind = []
    for index in range(24):
        now[0] = index / RATE
        finished(sight)  # it answers within one frame
        seen += sight.see(picture(index))
        behind.append(index - seen[-1].frame.index)
    seen += sight.finish()
    assert [one.frame.index for one in seen] == list(range(24))
    assert behind[-1] == 1
    assert min(overlap(one, left_of(one.frame.index)) for one in seen) > 0.9


def test_live_a_broken_network_is_told_and_it_comes_back(ask: Asking, network: Network) -> None:
    sight = live(ask, interval=2)
    sight.see(picture(0))
    network.broken = True
    sight.see(picture(1))
    sight.see(picture(2))
    finished_error = None
    try:
        finished(sight)
    except InferenceError as error:
        finished_error = error
    assert finished_error is not None
    with pytest.raises(InferenceError):
        sight.see(picture(3))
    with pytest.raises(InferenceError):
        sight.see(picture(4))
    network.broken = False
    (one,) = sight.see(picture(5))
    assert overlap(one, left_of(5)) == 1


@pytest.mark.parametrize("way", ["every", "keyframes", "careful"])
def test_a_network_that_hangs_holds_nobody_for_ever(
    way: str, ask: Asking, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    sight: Sight = EveryFrame(ask, Moments())
    if way != "every":
        pace = FixedPace(1 if way == "keyframes" else 2)
        sight = LiveKeyframes(ask, Moments(at_cuts=False), pace=pace, took_s=lambda: 0.1, careful=way == "careful")
    sight.see(picture(0))
    monkeypatch.setattr("streamseg.app.answers._PATIENCE_S", 0.05)
    network.go.clear()
    for index in range(1, 6):
        with pytest.raises(InferenceError, match="has not answered"):
            sight.see(picture(index, left=20 + 90 * (index % 2)))
    assert len(network.was_asked(2)) == 2, "it is not asked again while it hangs"
    network.go.set()
    deadline = threading.Event()
    for index in range(6, 3000):
        deadline.wait(0.01)
        try:
            (one,) = sight.see(picture(index, left=40))
        except InferenceError:
            continue
        assert overlap(one, 40) > 0.9
        return
    pytest.fail("it never came back")


def test_a_network_that_hides_somebody_and_hangs_holds_nobody_for_ever(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool([network])
    segment = in_good_time(pool)
    assert isinstance(segment(picture(0)), Matte)
    monkeypatch.setattr("streamseg.app.answers._PATIENCE_S", 0.05)
    network.go.clear()
    for index in range(1, 4):
        with pytest.raises(InferenceError, match="has not answered"):
            segment(picture(index))
    assert network.was_asked(2) == [0, 1], "it is not asked again while it hangs"
    network.go.set()
    pool.close()


def test_live_an_answer_that_is_too_old_is_not_carried_for_ever(ask: Asking, network: Network) -> None:
    sight = live(ask, interval=2)
    sight.see(picture(0))
    network.go.clear()
    for index in range(1, 2 * RATE):
        sight.see(picture(index, left=40 + index % 2))
    with pytest.raises(InferenceError, match=r"^the network does not answer$"):
        through(sight, [picture(index, left=40 + index % 2) for index in range(2 * RATE, 2 * RATE + 3)])


class Bright:
    """What is bright is the subject, on a grid of 40 cells across whatever it is shown."""

    class_names: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def __call__(self, frame: Frame) -> Matte:
        self.sizes.append((frame.width, frame.height))
        alpha = (frame.y > 130).astype(np.float32)
        size_wh = (40, round(40 * frame.height / frame.width))
        return Matte(cv2.resize(alpha, size_wh, interpolation=cv2.INTER_AREA), (frame.width, frame.height))

    def retune(self, *, confidence: float, iou: float, classes: object = None) -> None:
        raise AssertionError

    def describe(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("way", ["every", "keyframes"])
def test_a_close_look_is_finer_and_now_and_then_at_the_whole(way: str) -> None:
    scores = {}
    for close in (False, True):
        network = Bright()
        pool = Pool([network])
        ask = (CloseLook if close else Asking)(pool, lambda said: said)
        sight: Sight = EveryFrame(ask, Moments(), ahead=1)
        if way == "keyframes":
            sight = FileKeyframes(ask, Moments(), every=2, both_sides=True)
        seen = through(sight, [picture(index, left=101 + index % 3) for index in range(45)])
        pool.close()
        assert [one.frame.index for one in seen] == list(range(45))
        misses = []
        for one in seen[10:]:
            assert isinstance(one.segmentation, Matte)
            fine = cv2.resize(one.segmentation.alpha, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
            misses.append(float(np.abs((fine > 0.5).astype(int) - (one.frame.y > 130)).mean()))
        scores[close] = float(np.mean(misses))
    assert scores[True] < 0.8 * scores[False]
    whole = [size == (WIDTH, HEIGHT) for size in network.sizes]
    assert whole[0]
    assert 1 < sum(whole) < len(whole) / 3


def test_without_a_network_frames_pass() -> None:
    seen = through(Unseen(Moments()), [picture(index) for index in range(3)])
    assert [(one.frame.index, one.segmentation) for one in seen] == [(0, None), (1, None), (2, None)]


def test_a_pause_ends_no_shot_and_a_cut_does() -> None:
    at = [picture(0), picture(3 * RATE, left=20), picture(3 * RATE + 3, wall=OTHER_WALL, left=200)]
    seen = through(Unseen(Moments()), at)
    assert [one.dt_s for one in seen] == [0, 0, 0]
    assert [one.shot_s for one in seen] == [0, 3, 0]


def test_a_close_look_that_ends_after_a_cut_stays_in_its_window() -> None:
    class Crops:
        """Sees a small subject in the whole picture, which fills most of a window."""

        class_names: tuple[str, ...] = ()

        def __call__(self, frame: Frame) -> Matte:
            alpha = np.zeros((36, 64), np.float32)
            rows, columns = (slice(14, 22), slice(27, 37)) if frame.width == WIDTH else (slice(8, 28), slice(12, 52))
            alpha[rows, columns] = 1
            return Matte(alpha, (frame.width, frame.height))

        def retune(self, *, confidence: float, iou: float, classes: object = None) -> None:
            raise AssertionError

        def describe(self) -> dict[str, Any]:
            return {}

    pool = Pool([Crops()])
    try:
        sight = EveryFrame(CloseLook(pool, lambda said: said), Moments(), ahead=2)
        frames = [picture(index, wall=WALL if index < 10 else OTHER_WALL, left=100) for index in range(20)]
        seen = [*(one for frame in frames for one in sight.see(frame)), *sight.finish()]
    finally:
        pool.close()
    assert [one.dt_s == 0 for one in seen].index(True, 1) == 10
    assert max(float(one.segmentation.alpha.mean()) for one in seen) < 0.05


def test_what_a_failing_network_leaves_without_a_partner_does_not_pile_up(network: Network, ask: Asking) -> None:
    sight = TwoSights(Unseen(Moments()), EveryFrame(ask, Moments()))
    network.broken = True
    frames = [picture(index) for index in range(20)]
    alive = [weakref.ref(frame.planes) for frame in frames]
    while frames:
        with pytest.raises(InferenceError):
            sight.see(frames.pop(0))
    gc.collect()  # a failure and its traceback hold each other
    assert sum(one() is not None for one in alive) <= 2
    network.broken = False
    (seen,) = sight.see(picture(20))
    assert seen.frame.index == 20
    assert seen.beside is not None


def test_every_network_has_its_pace() -> None:
    paces = [AutoInterval(1 / RATE), AutoInterval(1 / RATE)]
    for pace in paces:
        pace.inferred(2.5 / RATE)
    process = SeeAndPaint(Unseen(Moments()), lambda seen: Output(seen.frame), None, *paces)
    for index in range(4 * RATE):
        process(picture(index, left=100))
    assert [pace.interval > 1 for pace in paces] == [True, True]

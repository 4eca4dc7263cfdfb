from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from streamseg.errors import SourceError
from streamseg.sources import open_source
from streamseg.sources.looped import LoopedVideo
from tests.clips import index_of, make_clip


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "ten.mkv", frames=10, rate=Fraction(10))


def shown(video: LoopedVideo, at_s: float) -> int:
    return index_of(video(at_s).y)


def test_each_frame_is_shown_for_its_time_and_the_first_follows_the_last(clip: Path) -> None:
    video = LoopedVideo(lambda: open_source(str(clip)))
    assert [shown(video, 7 + n / 20) for n in range(50)] == [n // 2 % 10 for n in range(50)]
    video.close()


def test_a_frame_that_stays_is_the_same_object(clip: Path) -> None:
    video = LoopedVideo(lambda: open_source(str(clip)))
    assert video(0) is video(0.05)
    video.close()


def test_a_jump_of_a_year_costs_one_pass_at_most(clip: Path) -> None:
    opened = []

    def open_again():
        opened.append(1)
        return open_source(str(clip))

    video = LoopedVideo(open_again)
    assert shown(video, 0) == 0
    assert shown(video, 365 * 86400 + 0.35) == 3
    assert len(opened) == 2
    video.close()


def test_a_video_of_one_frame_is_a_still(tmp_path: Path) -> None:
    one = make_clip(tmp_path / "one.mkv", frames=1)
    video = LoopedVideo(lambda: open_source(str(one)))
    assert [shown(video, at_s) for at_s in (0, 1, 1000)] == [0, 0, 0]
    video.close()


def test_a_video_that_vanishes_is_an_error(clip: Path) -> None:
    video = LoopedVideo(lambda: open_source(str(clip)))
    video(0)
    clip.unlink()
    with pytest.raises(SourceError):
        video(5)
    video.close()

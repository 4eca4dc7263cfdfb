from __future__ import annotations

import threading

import pytest

from streamseg.engine import Channel, ChannelClosed


def test_items_come_in_order_and_close_drains() -> None:
    channel: Channel[int] = Channel(3)
    assert [channel.put(n) for n in range(3)] == [True, True, True]
    channel.close()
    assert list(channel) == [0, 1, 2]
    with pytest.raises(ChannelClosed):
        channel.get()


def test_put_after_close_is_refused() -> None:
    channel: Channel[int] = Channel(1)
    channel.close()
    assert channel.put(1) is False


def test_drop_oldest_keeps_the_newest_and_counts() -> None:
    channel: Channel[int] = Channel(1, "drop_oldest")
    for n in range(5):
        channel.put(n)
    assert channel.get() == 4
    assert channel.dropped == 4


def test_get_times_out() -> None:
    channel: Channel[int] = Channel(1)
    with pytest.raises(TimeoutError):
        channel.get(timeout_s=0.001)


@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_blocked_writer_is_released(end: str) -> None:
    channel: Channel[int] = Channel(1)
    channel.put(0)
    results: list[bool] = []
    writer = threading.Thread(target=lambda: results.append(channel.put(1)))
    writer.start()
    getattr(channel, end)()
    writer.join(60)
    assert results == [False]


@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_blocked_reader_is_released(end: str) -> None:
    channel: Channel[int] = Channel(1)
    results: list[list[int]] = []
    reader = threading.Thread(target=lambda: results.append(list(channel)))
    reader.start()
    getattr(channel, end)()
    reader.join(60)
    assert results == [[]]


def test_abort_discards_what_waits() -> None:
    channel: Channel[int] = Channel(4)
    channel.put(1)
    channel.abort()
    assert len(channel) == 0
    with pytest.raises(ChannelClosed):
        channel.get()


def test_a_capacity_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Channel(0)


def test_nothing_is_lost_or_reordered_between_two_threads() -> None:
    channel: Channel[int] = Channel(2)
    seen: list[int] = []
    reader = threading.Thread(target=lambda: seen.extend(channel))
    reader.start()
    for n in range(2000):
        channel.put(n)
    channel.close()
    reader.join(60)
    assert seen == list(range(2000))

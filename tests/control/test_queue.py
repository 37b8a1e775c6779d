"""The queue: each name once, never twice at the same time, timers and back-off."""

from __future__ import annotations

import pytest

from flyball.control.queue import LONGEST_DELAY_S, WakeQueue
from flyball.ledger.refs import Ref
from flyball.testing.clock import FakeClock

A, B = Ref("model", "a"), Ref("model", "b")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def queue(clock: FakeClock) -> WakeQueue:
    return WakeQueue(clock)


def test_a_name_woken_twice_is_looked_at_once(queue: WakeQueue) -> None:
    queue.wake(A)
    queue.wake(A)
    assert queue.take() == A
    queue.done(A)
    assert queue.take() is None


def test_a_name_woken_while_busy_is_looked_at_once_more_afterwards(queue: WakeQueue) -> None:
    queue.wake(A)
    assert queue.take() == A
    queue.wake(A)
    assert queue.take() is None
    queue.done(A)
    assert queue.take() == A


def test_another_name_goes_ahead_of_one_that_is_busy(queue: WakeQueue) -> None:
    queue.wake(A)
    assert queue.take() == A
    queue.wake(A)
    queue.wake(B)
    assert queue.take() == B


def test_a_timer_never_postpones_an_earlier_alarm(queue: WakeQueue, clock: FakeClock) -> None:
    queue.wake(A, after_s=10)
    queue.wake(A, after_s=60)
    assert queue.take() is None
    clock.advance(10)
    assert queue.take() == A
    queue.done(A)
    clock.advance(100)
    assert queue.take() is None


def test_an_earlier_alarm_replaces_a_timer(queue: WakeQueue, clock: FakeClock) -> None:
    queue.wake(A, after_s=60)
    queue.wake(A)
    assert queue.take() == A
    queue.done(A)
    clock.advance(60)
    assert queue.take() is None


def test_failures_back_off_ever_longer_up_to_a_limit_and_success_forgets_them(
    queue: WakeQueue, clock: FakeClock
) -> None:
    queue.wake(A)
    delays = []
    for _ in range(14):
        assert queue.take() == A
        delays.append(queue.failed(A))
        assert queue.take() is None
        clock.advance(delays[-1])
    assert delays[0] < 1 < delays[5] < delays[13] <= LONGEST_DELAY_S * 1.25
    assert queue.take() == A
    queue.done(A)
    queue.wake(A)
    assert queue.take() == A
    assert queue.failed(A) < 1


def test_a_change_does_not_wait_for_the_back_off(queue: WakeQueue) -> None:
    queue.wake(A)
    queue.take()
    queue.failed(A)
    queue.wake(A)
    assert queue.take() == A
    assert not queue.is_idle()


def test_it_is_idle_when_nothing_is_due_and_nobody_works(queue: WakeQueue) -> None:
    assert queue.is_idle()
    queue.wake(A, after_s=5)
    assert queue.is_idle()
    assert queue.next_due_s() == 5
    queue.wake(B)
    assert not queue.is_idle()


def test_closing_lets_waiting_workers_go() -> None:
    from flyball.clock import SYSTEM

    queue = WakeQueue(SYSTEM)
    queue.close()
    assert queue.take(wait_s=30) is None

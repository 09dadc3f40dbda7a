"""Lanes are added while that makes the whole faster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from meibo.archive.copy.ramp import Ramp

if TYPE_CHECKING:
    from collections.abc import Callable


class Network:
    """Delivers bytes at a rate that depends on the number of lanes."""

    def __init__(self, rate: Callable[[int], float], most: int = 16) -> None:
        self.now = 0.0
        self.rate = rate
        self.ramp = Ramp(most, 8 << 20, lambda: self.now)

    def run(self, seconds: float) -> list[int]:
        limits = []
        end = self.now + seconds
        while self.now < end:
            self.now += 0.01
            self.ramp.arrived(int(self.rate(self.ramp.limit) * 0.01))
            limits.append(self.ramp.limit)
        return limits


def test_it_begins_with_one_lane() -> None:
    assert Network(lambda lanes: lanes * 1e6).run(0.05) == [1] * 5


def test_lanes_are_added_while_each_brings_its_own_rate() -> None:
    limits = Network(lambda lanes: lanes * 80e6).run(1)
    assert limits[-1] == 16
    assert limits.index(16) < 60


@pytest.mark.parametrize("most", [1, 2, 3, 16])
def test_there_are_never_more_than_allowed(most: int) -> None:
    assert max(Network(lambda lanes: lanes * 80e6, most).run(10)) == most


def test_a_step_that_harms_is_taken_back_and_tried_again_later() -> None:
    network = Network(lambda lanes: 100e6 if lanes == 1 else 50e6)
    limits = network.run(1.2)
    assert limits[-1] == 1
    network.rate = lambda lanes: lanes * 80e6
    assert network.run(4)[-1] == 16


def test_a_step_that_gains_nothing_is_taken_back_and_tried_ever_more_rarely() -> None:
    # given a CPU that is the limit, whatever the number of lanes
    network = Network(lambda _: 300e6)
    limits = network.run(60)
    steps = [at for at in range(1, len(limits)) if limits[at] > limits[at - 1]]
    assert limits.count(1) > len(limits) * 0.9
    assert 5 < len(steps) < 12
    # when the network is the limit
    network.rate = lambda lanes: lanes * 80e6
    # then
    assert network.run(12)[-1] == 16


def test_lanes_that_receive_and_send_together_are_judged_over_both() -> None:
    # given lanes that all receive for 100 ms and then all send for 170 ms
    network = Network(lambda _: 0)
    network.rate = lambda lanes: lanes * 80e6 if network.now % 0.27 < 0.1 else 0
    limits = network.run(4)
    assert limits[-1] == 16
    assert 1 not in limits[limits.index(4) :]
    assert 4 not in limits[limits.index(16) :]


def test_a_slow_network_is_judged_too() -> None:
    assert Network(lambda lanes: lanes * 100e3).run(20)[-1] == 16


def test_a_handshake_is_not_held_against_a_step() -> None:
    network = Network(lambda lanes: lanes * 80e6)
    network.run(0.12)
    assert network.ramp.limit == 4
    network.rate = lambda _: 1e6  # while four connections are made
    network.run(0.08)
    network.rate = lambda lanes: lanes * 80e6
    assert network.run(0.4)[-1] == 16

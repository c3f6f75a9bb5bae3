"""Back-off: longer each time, spread by chance, and never above the cap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.link.backoff import delay_s


def test_each_wait_is_twice_the_last_up_to_the_cap() -> None:
    waits = [delay_s(failures, first_s=0.5, cap_s=30, chance=1.0) for failures in range(1, 10)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


@given(st.integers(1, 10**9), st.floats(0, 1))
def test_chance_moves_a_wait_within_its_upper_half(failures: int, chance: float) -> None:
    longest = delay_s(failures, first_s=0.5, cap_s=30, chance=1.0)
    assert longest / 2 <= delay_s(failures, first_s=0.5, cap_s=30, chance=chance) <= longest <= 30

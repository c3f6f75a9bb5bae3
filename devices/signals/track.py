"""A signal of place: along a route, at the speed of traffic."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from random import Random
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from devices.clock import SECOND_US
from devices.models import Readings
from devices.signals.kind import Kind, Step
from devices.signals.written import Positive

Degrees = Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]
Point = Annotated[tuple[Degrees, Degrees], Field(strict=False)]

KM_PER_DEGREE = 111.32


class Track(Kind):
    """Latitude, longitude and speed, and the heading if asked. Each device begins somewhere else on the route."""

    word: ClassVar = "track"

    points: Annotated[
        tuple[Point, ...],
        Field(description="the route: [[52.52, 13.40], [52.53, 13.42]], latitude first", min_length=2, strict=False),
    ]
    speed_km_h: Annotated[float, Field(description="usual speed", gt=0, le=10_000)]
    spread: Annotated[Positive, Field(description="how far the usual speeds of devices differ, either way")] = 0.0
    noise: Annotated[Positive, Field(description="how far the speed wanders from the usual one")] = 0.0
    loop: Annotated[bool, Field(description="from the last point on to the first; else back the way it came")] = True
    heading: Annotated[bool, Field(description="whether the heading is given as well")] = False

    @model_validator(mode="after")
    def _on_earth(self) -> Self:
        for latitude, longitude in self.points:
            if abs(latitude) > 85:
                raise ValueError(f"[{latitude:g}, {longitude:g}] is too near a pole: a point is [latitude, longitude]")
        if len(set(self.points)) == 1:
            raise ValueError("all points are the same: a route leads somewhere")
        return self

    READINGS: ClassVar = ("latitude", "longitude", "speed", "heading")

    def gives(self, name: str) -> Mapping[str, type]:  # noqa: ARG002
        return dict.fromkeys(self.units(""), float)

    def units(self, name: str) -> Mapping[str, str]:  # noqa: ARG002
        heading = {"heading": "deg"} if self.heading else {}
        return {"latitude": "deg", "longitude": "deg", "speed": "km/h"} | heading

    def begin(self, name: str, chance: Random) -> Step:  # noqa: ARG002
        back = self.points[:1] if self.loop else self.points[-2::-1]
        stretches = [_stretch(one, other) for one, other in itertools.pairwise([*self.points, *back]) if one != other]
        ends = list(itertools.accumulate(stretch[0] for stretch in stretches))
        usual = max(0.1, self.speed_km_h + chance.uniform(-self.spread, self.spread))
        noise, with_heading = self.noise, self.heading
        gauss = chance.gauss if noise else None
        driven, departure, before = chance.uniform(0, ends[-1]), 0.0, 0

        def step(time: int, readings: Readings) -> None:
            nonlocal driven, departure, before
            seconds = (time - before) / SECOND_US if before else 0.0
            before = time
            if gauss:  # drawn back to the usual speed within a minute, however long the step
                kept = math.exp(-seconds / 60)
                departure = departure * kept + math.sqrt(1 - kept * kept) * gauss(0.0, noise)
            speed = max(0.0, usual + departure)
            driven = (driven + speed * seconds / 3_600) % ends[-1]
            length, latitude, longitude, north, east, heading = stretches[_place(ends, driven)]
            behind = (ends[_place(ends, driven)] - driven) / length
            readings["latitude"] = round(latitude + north * (1 - behind), 6)
            readings["longitude"] = round(longitude + east * (1 - behind), 6)
            readings["speed"] = round(speed, 1)
            if with_heading:
                readings["heading"] = heading

        return step


def _stretch(one: Point, other: Point) -> tuple[float, float, float, float, float, float]:
    """Length in km, where it begins, how far it leads north and east in degrees, and its heading."""
    north, east = other[0] - one[0], (other[1] - one[1] + 180) % 360 - 180
    east_level = east * math.cos(math.radians((one[0] + other[0]) / 2))
    heading = round(math.degrees(math.atan2(east_level, north)) % 360, 1) % 360
    return math.hypot(north, east_level) * KM_PER_DEGREE, *one, north, east, heading


def _place(ends: Sequence[float], driven: float) -> int:
    return min(bisect_right(ends, driven), len(ends) - 1)

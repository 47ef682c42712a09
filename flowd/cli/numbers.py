"""Numbers on the command line, which are refused as what they are."""

from __future__ import annotations

import math
from typing import Any

import click


class WholeNumber(click.IntRange):
    name = "whole number"  # click says of a word: no valid integer range


class Number(click.FloatRange):
    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number.", param, ctx)
        return number

"""Numbers on the command line, which are refused as what they are."""

from __future__ import annotations

import click


class WholeNumber(click.IntRange):
    name = "whole number"  # click says of a word: no valid integer range


class Number(click.FloatRange):
    name = "number"

"""Draw the ratios as an SVG: bars of which longer is better, each with the mark of its goal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from scripts.benchmark.figures import Result
from scripts.benchmark.report import number, verdict

_WIDTH = 1040
_BARS_AT = 330
_BARS_WIDTH = 380
_ROW = 26
_BAR = 14
_MARGIN = 24
# Bars end here, whatever they stand for; their text says how far they would have gone.
_SHARE_MAX = 1.5
_COLORS = {"yes": "#2f7d4f", "no": "#c0532b", "": "#8a93a0"}
_WORDS = {"yes": "met", "no": "missed", "": ""}
_TEXT, _FAINT, _GRID = "#1f2933", "#5f6b7a", "#d9dee5"


class _Bar(NamedTuple):
    label: str
    share: float
    goal_share: float | None
    text: str
    verdict: str


def as_svg(
    results: Sequence[Result], environment: Mapping[str, str], settings: Mapping[str, object]
) -> str:
    """A picture of all results that are not void, on a light background."""
    valid = [result for result in results if not result.void]
    groups = [
        (
            "Share of the floor measured in the same run (1 is the floor itself)",
            [_bar_of_ratio(one, one.ratio) for one in valid if one.ratio],
        ),
        (
            "Share of a fixed goal (1 is the goal)",
            [
                _bar_of_value(one, one.figure.value_goal)
                for one in valid
                if not one.ratio and one.figure.value_goal
            ],
        ),
    ]
    lines: list[str] = []
    y = _MARGIN + 18
    lines.append(_text(_MARGIN, y, "flowd: how fast, and how near to what the machine allows", 18))
    y += 20
    lines.append(_text(_MARGIN, y, _subtitle(environment, settings), 11, _FAINT))
    for title, bars in groups:
        if bars:
            y += 36
            lines.append(_text(_MARGIN, y, f"{title}; longer is better, ◇ is the goal", 13))
            y += 12
            lines += _axis(y, y + _ROW * len(bars))
            for bar in bars:
                lines += _row(y, bar)
                y += _ROW
            y += 14
    height = y + _MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" role="img" '
        'font-family="system-ui, sans-serif">'
    )
    background = f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>'
    return "\n".join([head, "<title>Figures of flowd</title>", background, *lines, "</svg>"]) + "\n"


def _subtitle(environment: Mapping[str, str], settings: Mapping[str, object]) -> str:
    return (
        f"flowd {environment['flowd']}, {environment['python']}, {environment['server']}, "
        f"{environment['cores']} cores; durability {settings['durability']}, "
        f"median of {settings['repetitions']}; {settings['taken']}"
    )


def _bar_of_ratio(result: Result, ratio: float) -> _Bar:
    figure = result.figure
    less, goal = figure.less_is_better, figure.ratio_goal
    assert result.floor is not None
    text = f"{number(result.value)} {figure.unit}; {figure.floor} {number(result.floor)}"
    goal_share = None if goal is None else _share(goal, less)
    return _Bar(_label(result), _share(ratio, less), goal_share, text, verdict(result))


def _bar_of_value(result: Result, goal: float) -> _Bar:
    figure = result.figure
    share = _share(result.value / goal, figure.less_is_better)
    text = f"{number(result.value)} {figure.unit}; goal {number(goal)}"
    return _Bar(_label(result), share, 1.0, text, verdict(result))


def _share(ratio: float, less_is_better: bool) -> float:
    if not less_is_better:
        return ratio
    return 1 / ratio if ratio else _SHARE_MAX


def _label(result: Result) -> str:
    return f"{result.figure.id}: {result.figure.what}"


def _axis(top: float, bottom: float) -> Iterator[str]:
    for tenth in (0, 5, 10, 15):
        x = _x(tenth / 10)
        color = _FAINT if tenth == 10 else _GRID
        yield f'<line x1="{x}" y1="{top}" x2="{x}" y2="{bottom}" stroke="{color}"/>'
        yield _text(x, bottom + 12, f"{tenth / 10:g}", 10, _FAINT, "middle")


def _row(y: float, bar: _Bar) -> Iterator[str]:
    middle = y + _ROW / 2
    is_cut = bar.share > _SHARE_MAX
    width = _x(bar.share) - _BARS_AT
    yield _text(_BARS_AT - 8, middle + 4, bar.label, 12, _TEXT, "end")
    yield (
        f'<rect x="{_BARS_AT}" y="{middle - _BAR / 2}" width="{width:.1f}" height="{_BAR}" '
        f'rx="2" fill="{_COLORS[bar.verdict]}"/>'
    )
    if bar.goal_share is not None:
        x = _x(bar.goal_share)
        yield (
            f'<path d="M {x} {middle - 8} l 5 8 l -5 8 l -5 -8 z" fill="#ffffff" '
            f'stroke="{_TEXT}" stroke-width="1.5"/>'
        )
    share = f"{'» ' if is_cut else ''}{bar.share:.2f}"
    words = " ".join(part for part in (share, _WORDS[bar.verdict]) if part)
    right = _BARS_AT + _BARS_WIDTH + 14
    yield _text(right, middle + 4, words, 12)
    yield _text(right + 86, middle + 4, bar.text, 11, _FAINT)


def _x(share: float) -> float:
    return round(_BARS_AT + min(share, _SHARE_MAX) / _SHARE_MAX * _BARS_WIDTH, 1)


def _text(
    x: float, y: float, text: str, size: int, color: str = _TEXT, anchor: str = "start"
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" fill="{color}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )

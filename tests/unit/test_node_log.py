"""What stands in place of a worker's stdout behaves as a stream of text does."""

from __future__ import annotations

import io

import click
import pytest

from flowd.node_log import SpokenStream


def test_bytes_are_refused_even_when_there_are_none():
    stream = SpokenStream(io.StringIO(), "stdout")
    for written in (b"", b"hello"):
        with pytest.raises(TypeError):
            stream.write(written)


def test_a_worker_of_its_own_says_that_it_runs(monkeypatch):
    told = io.StringIO()
    monkeypatch.setattr("sys.stdout", SpokenStream(told, "stdout"))

    click.echo("flowd worker w runs")

    assert told.getvalue() == "flowd worker w runs\n"

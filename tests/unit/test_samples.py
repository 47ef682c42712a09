"""The sample workflows have the documented shapes and need no network."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from flowd.cli.samples import MORE, NAMES, SAVED, load_samples
from flowd.config import Settings

SHAPES: dict[str, dict[str, list[str]]] = {
    "linear": {"A": [], "B": ["A"], "C": ["B"]},
    "fanout": {"A": [], "B": ["A"], "C": ["A"], "D": ["B", "C"]},
    "race": {"B": [], "C": [], "D": ["B", "C"]},
}


def sample(name: str) -> dict[str, Any]:
    definition: dict[str, Any] = json.loads(load_samples((name,))[name])
    return definition


def test_there_are_three_samples() -> None:
    assert tuple(SHAPES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_has_its_documented_shape(name: str) -> None:
    definition = sample(name)

    nodes = {node["id"]: node["dependencies"] for node in definition["dag"]["nodes"]}
    assert (definition["name"], nodes) == (name, SHAPES[name])


def test_linear_is_the_documented_one() -> None:
    assert [node["config"] for node in sample("linear")["dag"]["nodes"]] == [
        {"url": "http://service-a"},
        {"prompt": "Summarize {{ A.data }}"},
        {"url": "http://consumer/{{ B.answer }}"},
    ]


@pytest.mark.parametrize("name", [*NAMES, *MORE, *SAVED])
def test_a_sample_calls_simulated_hosts_only(name: str) -> None:
    urls = [
        node["config"]["url"]
        for node in sample(name)["dag"]["nodes"]
        if node["handler"] == "call_external_service"
    ]

    hosts = {urlsplit(url).hostname for url in urls}
    assert hosts
    assert hosts <= set(Settings().handlers.call_external_service.simulated_hosts)

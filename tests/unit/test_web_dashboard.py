"""The dashboard's page and files: what is served, how, and that nothing else is in them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from starlette.testclient import TestClient

from flowd.api.app import create_app
from flowd.api.http.auth import Guard
from flowd.cli.main import main
from flowd.config.loading import load_settings
from flowd.store import open_store
from flowd.tokens import change_tokens, new_token
from flowd.web import dashboard
from scripts.vendoring import LOCK, VENDOR, differences

SOURCES = sorted(path for path in dashboard.STATIC.rglob("*.*js") if path.parent != VENDOR)
IMPORT = re.compile(r"""(?:\bfrom\s*|\bimport\s*\(\s*)["']([\w@./-]+)["']""")
FIRST_BYTES_MAX = 60 * 1024
FIRST_MODULES_MAX = 30
PACKED_BYTES_MAX = 300 * 1024


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    """Of an API that takes a token: none of this does."""
    config = tmp_path / "flowd.toml"
    config.touch()
    nowhere = load_settings(config, {}, {}).with_redis_socket(str(tmp_path / "no.sock"))
    change_tokens(tmp_path, lambda tokens: (*tokens, new_token("only", "admin")[0]))
    guard = Guard(nowhere.api, tmp_path, "127.0.0.1")
    with TestClient(create_app(open_store(nowhere), {"noop": None}, guard)) as client:
        yield client


def test_a_browser_is_led_to_the_dashboard_and_nobody_else(client: TestClient) -> None:
    browser = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}

    led = client.get("/", headers=browser, follow_redirects=False)
    other = client.get("/", follow_redirects=False)

    assert (led.status_code, led.headers["location"]) == (303, "ui/")
    assert (other.status_code, other.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/ui", "./ui/"),
        ("/ui/", "./"),
        ("/ui/executions", "./"),
        ("/ui/executions/0123", "../"),
        ("/ui/executions/0123/nodes", "../../"),
        ("/ui/definitions/a%2Fb", "../"),
    ],
)
def test_every_address_has_the_page_with_a_policy_that_lets_only_its_own_run(
    client: TestClient, path: str, root: str
) -> None:
    answer = client.get(path)
    (imports,) = re.findall(r'<script type="importmap">(.*?)</script>', answer.text)
    digest = base64.b64encode(hashlib.sha256(imports.encode()).digest()).decode()

    assert answer.headers["content-security-policy"] == (
        f"default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self'; "
        "img-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    )
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    named = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    named += json.loads(imports)["imports"].values()
    assert len(named) > 10
    for address in named:
        assert address.startswith(f"{root}static/{dashboard.version()}/")
        name = address.removeprefix(f"{root}static/")
        assert client.get(f"/ui/static/{name}").status_code == 200


def test_an_address_deeper_than_any_view_is_none(client: TestClient) -> None:
    assert client.get("/ui/" + "x/" * 9).status_code == 404


def test_a_file_is_kept_for_ever_under_its_version_and_not_under_another(
    client: TestClient,
) -> None:
    kept = client.get(f"/ui/static/{dashboard.version()}/app.js")
    older = client.get("/ui/static/0123456789abcdef/app.js")

    assert kept.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert older.headers["cache-control"] == "no-store"
    assert kept.content == older.content == (dashboard.STATIC / "app.js").read_bytes()
    assert kept.headers["content-type"] == "text/javascript; charset=utf-8"


def test_what_a_browser_has_is_not_sent_again_and_what_it_takes_is_packed(
    client: TestClient,
) -> None:
    first = client.get("/ui/executions", headers={"accept-encoding": "identity"})
    packed = client.get("/ui/executions", headers={"accept-encoding": "gzip"})
    again = client.get("/ui/executions", headers={"if-none-match": first.headers["etag"]})

    assert "content-encoding" not in first.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < len(first.content)
    assert packed.content == first.content
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]


@pytest.mark.parametrize(
    "file", ["", "0", "0/", "0/nothing.js", "0/../dashboard.py", "0/..%2fdashboard.py", "0//app.js"]
)
def test_nothing_but_the_files_is_served(client: TestClient, file: str) -> None:
    assert client.get(f"/ui/static/{file}").status_code in (401, 404)


def test_the_first_load_is_small() -> None:
    """The shell and the first view; the others are loaded when they are visited."""
    modules = [*dashboard.first_modules(), *behind("views/executions.js")]
    names = {*modules, "app.css", "theme.js", "icon.svg"}
    files = [dashboard.asset(f"{dashboard.version()}/{name}") for name in sorted(names)]

    assert len(set(modules)) <= FIRST_MODULES_MAX
    assert sum(len(one.packed) for one in files if one) <= FIRST_BYTES_MAX


def behind(name: str) -> set[str]:
    found: set[str] = set()
    left = [name]
    while left:
        current = left.pop()
        if current not in found:
            found.add(current)
            text = (dashboard.STATIC / current).read_text()
            for target in re.findall(r"""\bfrom\s*["'](\.[\w./-]+)["']""", text):
                path = (dashboard.STATIC / current).parent.joinpath(target).resolve()
                left.append(path.relative_to(dashboard.STATIC).as_posix())
    return found


def test_all_of_it_adds_little_to_the_wheel() -> None:
    files = [path for path in dashboard.STATIC.rglob("*.*") if path.is_file()]

    assert sum(len(gzip.compress(path.read_bytes())) for path in files) <= PACKED_BYTES_MAX


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_a_module_loads_only_what_is_there_and_never_writes_markup(source: Path) -> None:
    text = source.read_text()

    for word in ("innerHTML", "outerHTML", "dangerouslySetInnerHTML", "insertAdjacentHTML"):
        assert word not in text
    assert not re.search(r"\beval\(|new Function\(|document\.write", text)
    assert not re.search(r"""<[a-z]+[^>]* style=["']""", text), "the policy refuses it"
    for target in IMPORT.findall(text):
        known = target in dashboard.IMPORTS or (source.parent / target).resolve().is_file()
        assert known, target


def test_the_libraries_are_those_of_the_lock_and_say_their_licence() -> None:
    packages = json.loads(LOCK.read_text())

    assert differences() == []
    for package in packages:
        assert set(package) == {"name", "version", "integrity", "license", "files"}
        assert package["integrity"].startswith("sha512-")
        assert any("LICENSE" in file["from"] for file in package["files"].values())


def test_a_changed_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for path in VENDOR.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr("scripts.vendoring.VENDOR", tmp_path)
    (tmp_path / "htm.mjs").write_text("export default 1")
    (tmp_path / "more.mjs").touch()

    assert [one.split()[0].rpartition("/")[2] for one in differences()] == ["htm.mjs", "more.mjs"]


COMMANDS = sorted(
    {
        (path.name, command)
        for path in SOURCES
        for command in re.findall(r"[`\"'>]flowd ([a-z]+(?: [a-z]+)?)", path.read_text())
        # A sentence about flowd names none.
        if not command.startswith(("does ", "keeps "))
    }
)


@pytest.mark.parametrize(("source", "command"), COMMANDS)
def test_a_command_the_page_names_is_one(source: str, command: str) -> None:
    first, _, second = command.partition(" ")
    found = main.get_command(click.Context(main), first)

    assert found is not None, source
    if isinstance(found, click.Group):
        assert found.get_command(click.Context(found), second) is not None

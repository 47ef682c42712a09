"""Settings: where a value comes from, and what a mistake is answered with."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowd.config import Settings
from flowd.config.loading import ignored_variables, load_settings
from flowd.errors import InvalidSettings
from flowd.store.redis import keys
from flowd.workflow.ids import new_execution_id

Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Settings of a folder of our own, with nothing of this machine's environment."""
    monkeypatch.chdir(tmp_path)

    def load(
        toml: str = "", *, dotenv: str = "", flags: Any = None, environ: Any = None
    ) -> Settings:
        if toml:
            (tmp_path / "flowd.toml").write_text(toml)
        if dotenv:
            (tmp_path / ".env").write_text(dotenv)
        return load_settings(None, flags or {}, environ or {})

    return load


def problems_of(load: Load, *arguments: Any, **named: Any) -> list[str]:
    with pytest.raises(InvalidSettings) as caught:
        load(*arguments, **named)
    return [str(problem) for problem in caught.value.problems]


def test_without_any_source_the_documented_defaults_hold(load: Load, tmp_path: Path) -> None:
    settings = load()

    assert (settings.redis.host, settings.redis.port, settings.redis.db) == ("localhost", 6379, 0)
    assert (settings.environment, settings.debug) == ("development", True)
    assert (settings.tasks.stream, settings.tasks.group) == ("workflow:tasks", "workflow_group")
    assert settings.workers.name.startswith("worker-")
    assert (settings.api.host, settings.api.port, settings.api.processes) == ("127.0.0.1", 8000, 1)
    assert (settings.workers.count, settings.workers.concurrency) == (2, 64)
    assert (settings.redis.mode, settings.redis.durability) == ("auto", "always")
    assert (settings.scheduler.interval_s, settings.shutdown.grace_s) == (1.0, 30.0)
    assert settings.redis.data_dir == tmp_path / ".flowd"


SOURCES = [
    ("default", 6379),
    ("file", 1001),
    ("dotenv", 1002),
    ("documented", 1003),
    ("flowd", 1004),
]


@pytest.mark.parametrize(("strongest", "port"), SOURCES)
def test_a_value_comes_from_the_strongest_source(load: Load, strongest: str, port: int) -> None:
    given = [name for name, _ in SOURCES[: [name for name, _ in SOURCES].index(strongest) + 1]]
    environ = {}
    if "documented" in given:
        environ["REDIS_PORT"] = "1003"
    if "flowd" in given:
        environ["FLOWD_REDIS__PORT"] = "1004"

    settings = load(
        "[redis]\nport = 1001" if "file" in given else "",
        dotenv="REDIS_PORT=1002" if "dotenv" in given else "",
        environ=environ,
    )

    assert settings.redis.port == port


def test_a_flag_wins_over_everything_and_an_absent_flag_over_nothing(load: Load) -> None:
    settings = load(
        "[workers]\ncount = 7",
        flags={"api.port": 0, "workers.count": None},
        environ={"FLOWD_API__PORT": "9000"},
    )

    assert (settings.api.port, settings.workers.count) == (0, 7)


def test_the_documented_variables_are_read_from_the_environment_and_dotenv(load: Load) -> None:
    settings = load(
        dotenv="export REDIS_HOST=redis.internal\nENVIRONMENT='production'\n# REDIS_DB=9\n",
        environ={
            "REDIS_DB": "3",
            "DEBUG": "False",
            "WORKER_STREAM": "s",
            "WORKER_GROUP": "g",
            "WORKER_NAME": "w",
        },
    )

    assert (settings.redis.host, settings.redis.db) == ("redis.internal", 3)
    assert (settings.environment, settings.debug) == ("production", False)
    assert (settings.tasks.stream, settings.tasks.group) == ("s", "g")
    assert settings.workers.name == "w"


def test_an_empty_documented_variable_is_not_given(load: Load) -> None:
    assert load(environ={"REDIS_PORT": "", "DEBUG": ""}).redis.port == 6379


def test_foreign_variables_in_dotenv_are_nobodys_business(load: Load) -> None:
    assert load(dotenv="PORT=1\nAWS_REGION=x\n").api.port == 8000


def test_dotenv_is_read_from_the_folder_of_the_config_file(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.toml").touch()
    (tmp_path / ".env").write_text("REDIS_PORT=7001")

    assert load_settings(tmp_path / "elsewhere.toml", {}, {}).redis.port == 7001


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    """Editors of Windows write one: the file was no TOML, and the first variable another one."""
    (tmp_path / "flowd.toml").write_text("[api]\nport = 7002\n", "utf-8-sig")
    (tmp_path / ".env").write_text("FLOWD_SECRET_first=the first one\nREDIS_PORT=7001", "utf-8-sig")

    settings = load_settings(tmp_path / "flowd.toml", {}, {})

    assert (settings.api.port, settings.redis.port) == (7002, 7001)
    assert settings.secrets.from_dotenv == (("FLOWD_SECRET_first", "the first one"),)


def test_lists_are_read_from_the_file_and_with_commas_from_a_variable(load: Load) -> None:
    name = "FLOWD_HANDLERS__CALL_EXTERNAL_SERVICE__SIMULATED_HOSTS"
    from_file = load('[handlers.call_external_service]\nsimulated_hosts = ["a", "b"]')
    from_variable = load(environ={name: "c, d"})

    assert from_file.handlers.call_external_service.simulated_hosts == ("a", "b")
    assert from_variable.handlers.call_external_service.simulated_hosts == ("c", "d")


def test_a_relative_data_dir_starts_from_where_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "here").mkdir()
    config = tmp_path / "etc" / "flowd.toml"
    config.write_text('[redis]\ndata_dir = "data"')
    monkeypatch.chdir(tmp_path / "here")

    assert load_settings(config, {}, {}).redis.data_dir == tmp_path / "etc" / "data"
    flags = {"redis.data_dir": "data"}
    assert load_settings(config, flags, {}).redis.data_dir == tmp_path / "here" / "data"
    config.write_text("")
    assert load_settings(config, {}, {}).redis.data_dir == tmp_path / "etc" / ".flowd"


def test_every_problem_is_reported_at_once_with_its_place(load: Load, tmp_path: Path) -> None:
    found = problems_of(
        load,
        "[api]\n"
        "prot = 8000\n"
        "port = 99999\n"
        "[worker]\n"
        "count = 3\n"
        "[redis]\n"
        "interval_s = 2\n"
        "durability = 'never'\n",
        dotenv="\nFLOWD_API__PROT=1\n",
        environ={"REDIS_PORT": "6379/tcp"},
    )

    assert found == [
        "flowd.toml:2: unknown key 'prot' in [api]; did you mean 'port'?",
        "flowd.toml:4: unknown section [worker]; did you mean 'workers'?",
        "flowd.toml:7: unknown key 'interval_s' in [redis]; it belongs in [scheduler]",
        (
            f"{tmp_path}/.env:2: FLOWD_API__PROT: no setting has this name; "
            "did you mean 'FLOWD_API__PORT'?"
        ),
        "flowd.toml:3: api.port must be a whole number from 0 to 65535, 99999 is not",
        "flowd.toml:8: redis.durability must be 'always' or 'everysec', 'never' is not",
        ("REDIS_PORT: redis.port must be a whole number from 0 to 65535, '6379/tcp' is not"),
    ]


@pytest.mark.parametrize("name", ["FLOWD_NIX", "FLOWD_API__NIX"])
def test_only_a_variable_that_looks_like_one_is_offered(load: Load, name: str) -> None:
    """All begin alike, so that for FLOWD_NIX FLOWD_ENVIRONMENT was offered."""
    (found,) = problems_of(load, "", environ={name: "1"})

    assert found == f"{name}: no setting has this name"


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("api = 3", "flowd.toml:1: api is a section; write [api] above its keys"),
        ("[workers]\ncount = true", "workers.count must be a whole number from 0 to 512"),
        ("[workers]\ncount = 1.5", "workers.count must be a whole number from 0 to 512"),
        # Every process was killed as soon as it had started, without end.
        (
            "[supervisor]\nhung_after_s = 0.001",
            "supervisor.hung_after_s must be 0, or a number of seconds from 0.5 to 3600, 0.001 is",
        ),
        ("[shutdown]\ngrace_s = -1", "shutdown.grace_s must be a number of seconds"),
        ("[scheduler]\ninterval_s = nan", "scheduler.interval_s must be a number of seconds"),
        ("debug = 'maybe'", "debug must be true or false, 'maybe' is not"),
        ("[redis]\nurl = 'http://x'", "redis.url must be a URL that starts with redis://"),
        (
            "[redis]\nmode = 'embedded'\nurl = 'redis://x'",
            "flowd.toml:2) and a redis.url (",
        ),
        ("[redis]\nhost = ''", "redis.host must be a text that is not empty"),
        ("[handlers.llm]\nmodl = 'x'", "unknown key 'modl' in [handlers.llm]; did you mean"),
        ("port = 1", "flowd.toml:1: unknown key 'port'; it belongs in [api]"),
        ("[api\n", "this is not TOML"),
        ("[api]\n[redis]\n[api]\nport = 1", "write each section once, with all its keys"),
        ("a = " + "[" * 100_000, "this is not TOML"),
        ("[api]\nport = " + "9" * 5000, "this is not TOML"),
        ("[log]\nfile = '~no-such-user/x'", "log.file must be a path, and after ~ the name of a"),
    ],
)
def test_a_mistake_in_the_file_says_what_would_be_right(
    load: Load, toml: str, message: str
) -> None:
    (found,) = problems_of(load, toml)

    assert message in found


def test_a_config_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="cannot read it: No such file"):
        load_settings(tmp_path / "absent.toml", {}, {})


def test_a_folder_that_is_gone_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    with pytest.raises(InvalidSettings, match="the folder flowd runs in is gone"):
        load_settings(tmp_path / "flowd.toml", {}, {})


@pytest.mark.parametrize(
    "name", ["FLOWD_TEST_REDIS_SERVER", "FLOWD_URL", "FLOWD_TOKEN", "FLOWD_PROFILE"]
)
def test_variables_of_clients_and_tests_are_no_settings(load: Load, name: str) -> None:
    assert load(environ={name: "x"}) == load()


def test_a_flag_with_a_bad_value_is_named_as_it_was_typed(load: Load) -> None:
    assert problems_of(load, flags={"workers.count": -1}) == [
        "--workers: workers.count must be a whole number from 0 to 512, -1 is not"
    ]


def test_secrets_appear_neither_in_repr_nor_in_messages(load: Load) -> None:
    settings = load(
        "[redis]\nurl = 'redis://user:canary@redis.internal'\n"
        "[handlers.llm]\napi_key = 'canary'\nbase_url = 'http://llm'",
    )

    assert settings.handlers.llm.api_key == "canary"
    assert "canary" not in repr(settings)
    assert settings.redis.address == "redis.internal:6379"
    found = problems_of(load, environ={"FLOWD_REDIS__URL": "http://:canary@x"})
    assert "canary" not in "".join(found)


def test_settings_survive_pickling_and_move_to_a_socket(load: Load) -> None:
    settings = load()

    moved = settings.with_redis_socket("/run/redis.sock")

    assert pickle.loads(pickle.dumps(settings)) == settings
    assert moved.redis.address == "unix:/run/redis.sock"
    assert settings.redis.socket_path is None


def test_the_shipped_file_is_valid_and_holds_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = Path(__file__).parents[2] / "flowd.toml"

    settings = load_settings(shipped, {"redis.data_dir": ".flowd"}, {})

    assert settings == load_settings(None, {}, {})


@pytest.mark.parametrize(
    "environ",
    [
        # Kubernetes, beside a Service named flowd, flowd-api, flowd-port.
        {"FLOWD_PORT": "tcp://10.0.0.12:8000", "FLOWD_SERVICE_HOST": "10.0.0.12"},
        {"FLOWD_SERVICE_PORT": "8000", "FLOWD_SERVICE_PORT_HTTP": "8000"},
        {"FLOWD_PORT_8000_TCP": "tcp://10.0.0.12:8000", "FLOWD_PORT_8000_TCP_PROTO": "tcp"},
        {"FLOWD_PORT_8000_TCP_PORT": "8000", "FLOWD_PORT_8000_TCP_ADDR": "10.0.0.12"},
        {"FLOWD_API_PORT": "udp://10.0.0.12:53", "FLOWD_API_SERVICE_HOST": "10.0.0.12"},
        {"FLOWD_API_PORT_53_UDP_ADDR": "10.0.0.12"},
    ],
)
def test_what_a_cluster_says_of_its_services_is_no_setting(
    load: Load, environ: dict[str, str]
) -> None:
    assert load(environ=environ) == Settings(
        redis=load().redis, handlers=load().handlers, workers=load().workers
    )


@pytest.mark.parametrize("name", ["FLOWD_PORT", "FLOWD_API_PORT", "FLOWD_SERVICE"])
def test_a_mistaken_name_is_refused_also_where_a_cluster_has_a_similar_one(
    load: Load, name: str
) -> None:
    assert problems_of(load, environ={name: "9000"})[0].startswith(f"{name}: no setting has this")


def test_what_is_not_meant_for_flowd_is_a_warning_and_leaves_the_default(
    load: Load, tmp_path: Path
) -> None:
    environ = {"REDIS_PORT": "tcp://10.0.0.11:6379", "DEBUG": "release"}
    settings = load(environ=environ)

    assert (settings.redis.port, settings.debug) == (6379, True)
    assert ignored_variables(tmp_path, environ) == [
        "DEBUG: 'release' is not taken: debug is true or false",
        (
            "REDIS_PORT: 'tcp://10.0.0.11:6379' is not taken: Kubernetes writes it for a Service; "
            "FLOWD_REDIS__PORT is ours"
        ),
    ]
    assert ignored_variables(tmp_path, {"DEBUG": "0", "REDIS_PORT": ""}) == []
    assert "redis.port must be" in problems_of(load, environ={"REDIS_PORT": "tcp"})[0]
    assert "debug must be" in problems_of(load, environ={"FLOWD_DEBUG": "release"})[0]


def test_an_environment_flowd_does_not_know_is_refused_where_it_was_meant_for_it(
    load: Load,
) -> None:
    told = "environment must be 'development' or 'production', 'prod' is not"

    (problem,) = problems_of(load, environ={"FLOWD_ENVIRONMENT": "prod"})
    assert problem == f"FLOWD_ENVIRONMENT: {told}"
    (problem,) = problems_of(load, 'environment = "prod"')
    assert problem.endswith(f"flowd.toml:1: {told}")


def test_another_word_in_the_variable_all_programs_share_counts_as_production_with_a_warning(
    load: Load, tmp_path: Path
) -> None:
    environ = {"ENVIRONMENT": "staging"}

    assert load('environment = "development"', environ=environ).environment == "production"
    (warning,) = ignored_variables(tmp_path, environ)
    assert warning == (
        "ENVIRONMENT: 'staging' is not taken: environment is 'development' or 'production', and "
        "here it is taken to be 'production'"
    )
    assert ignored_variables(tmp_path, {"ENVIRONMENT": "production"}) == []


OWN_KEYS = {*keys.shared_types("own"), keys.HALTED, keys.SCHEDULER} - {"own"}


def test_the_stream_may_have_a_name_of_its_own(load: Load) -> None:
    assert load(environ={"WORKER_STREAM": "workflow:mine"}).tasks.stream == "workflow:mine"


@pytest.mark.parametrize("name", sorted(OWN_KEYS))
def test_the_stream_is_no_key_that_flowd_keeps_for_something_else(load: Load, name: str) -> None:
    (problem,) = problems_of(load, f'[tasks]\nstream = "{name}"')

    told = f"tasks.stream must be a key that flowd does not keep for something else, {name!r}"
    assert told in problem


@pytest.mark.parametrize("of_an_execution", [keys.definition, keys.run, keys.attempts, keys.status])
def test_the_stream_is_no_key_of_an_execution(
    load: Load, of_an_execution: Callable[[str], str]
) -> None:
    environ = {"WORKER_STREAM": of_an_execution(new_execution_id(0))}

    assert "tasks.stream must be a key" in problems_of(load, environ=environ)[0]


@pytest.mark.parametrize(
    ("environ", "shows"),
    [
        ({}, True),
        ({"DEBUG": "false"}, False),
        ({"ENVIRONMENT": "production"}, False),
        ({"ENVIRONMENT": "production", "DEBUG": "true"}, False),
        ({"ENVIRONMENT": "staging"}, False),
    ],
)
def test_tracebacks_are_shown_in_development_only(
    load: Load, environ: dict[str, str], shows: bool
) -> None:
    assert load(environ=environ).shows_tracebacks is shows


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://h/zero", "the number of a db"),
        ("redis://h:1/1024", "the number of a db"),
        ("redis://h/0/1", "the number of a db"),
        ("redis://h?db=x", "the number of a db"),
        ("redis://h/0?timeout=5", "'timeout' is none of them"),
        ("redis://h?ssl_server_name=x", "begins with rediss for what ssl_server_name says"),
        ("redis+sentinel://h/p0?ssl_ca_certs=x", "begins with rediss for what ssl_ca_certs says"),
        ("rediss://h?ssl_ca_certs=/no/ca", "whose ssl_ca_certs flowd can read; '/no/ca' it cannot"),
        ("rediss+sentinel://h/p0?ssl_keyfile=/no/key", "whose ssl_keyfile flowd can read"),
        ("unix:///run/redis.sock?database=1", "'database' is none of them"),
    ],
)
def test_a_redis_url_the_client_would_not_understand_is_refused(
    load: Load, url: str, told: str
) -> None:
    (problem,) = problems_of(load, environ={"FLOWD_REDIS__URL": url})
    assert told in problem
    assert url not in problem


@pytest.mark.parametrize(
    "url",
    ["redis://h", "redis://h/", "redis://h/7", "rediss://h/7?ssl_cert_reqs=none", "unix:///s?db=1"],
)
def test_a_redis_url_may_name_its_db_and_its_certificates(load: Load, url: str) -> None:
    assert load(environ={"FLOWD_REDIS__URL": url}).redis.url == url

"""Settings: every problem at once, and no secret anywhere it might be read."""

from ipaddress import ip_network

import pytest

from server.settings import RATE_LIMITS, REFERENCES, SettingsError, load_settings, read_client_settings, read_settings
from tests.http.conftest import ENVIRONMENT
from tests.stack.product import ROOT

MINIMAL = {
    "SUPABASE_URL": "https://abc.supabase.co/",
    "SUPABASE_PUBLISHABLE_KEY": "sb_publishable_x",
    "SUPABASE_SECRET_KEY": "sb_secret_hush",
}


def test_three_variables_are_enough():
    settings = read_settings(MINIMAL)
    assert settings.supabase_url == "https://abc.supabase.co"
    assert settings.supabase_jwt_issuer == "https://abc.supabase.co/auth/v1"
    assert settings.supabase_jwt_audience == "authenticated"
    assert (settings.host, settings.port, settings.web_concurrency) == ("127.0.0.1", 8000, 1)
    assert (settings.private_targets, settings.cors_origins) == ((), frozenset())


def test_the_address_of_the_streams_follows_their_port_unless_it_is_told():
    assert read_settings({**MINIMAL, "STREAMS_PORT": "9001"}).streams_url == "http://127.0.0.1:9001"
    told = read_settings({**MINIMAL, "STREAMS_URL": "https://streams.example.com/"})
    assert (told.streams_url, told.streams_port, told.max_streams) == ("https://streams.example.com", 8001, 10_000)


def test_everything_that_is_missing_or_malformed_is_said_at_once():
    broken = {
        "SUPABASE_URL": "abc.supabase.co",
        "SUPABASE_JWT_SECRET": "short",
        "CORS_ORIGINS": "https://app.example.com/path",
        "INVITATION_URL": "https://app.example.com/join?token=",
        "REDIS_URL": "http://localhost",
        "PRIVATE_TARGETS": "10.0.0.1/8",
        "WORKER_REGION": "Europe/West",
        "WORKER_REFERENCES": "1.1.1.1",
        "LOG_LEVEL": "LOUD",
        "PORT": "80000",
        "WEB_CONCURRENCY": "0",
        "RATE_LIMITS": "ordinary=many",
        "TRUSTED_PROXIES": "all",
    }
    with pytest.raises(SettingsError) as refused:
        read_settings(broken)
    said = str(refused.value)
    for name in [*broken, "SUPABASE_PUBLISHABLE_KEY", "SUPABASE_SECRET_KEY"]:
        assert name in said
    assert len(refused.value.problems) == len(broken) + 2


def test_a_blank_value_counts_as_not_set():
    assert read_settings({**MINIMAL, "PORT": " ", "SUPABASE_JWT_ISSUER": ""}).port == 8000
    with pytest.raises(SettingsError, match="SUPABASE_URL is missing"):
        read_settings({**MINIMAL, "SUPABASE_URL": ""})


def test_the_issuer_is_unchecked_only_in_so_many_words():
    assert read_settings({**MINIMAL, "SUPABASE_JWT_ISSUER": ""}).supabase_jwt_issuer is not None
    assert read_settings({**MINIMAL, "SUPABASE_JWT_ISSUER": "unchecked"}).supabase_jwt_issuer is None


def test_no_secret_is_in_what_is_printed():
    secret = "a-very-secret-secret-of-40-characters-ok"
    settings = read_settings({**MINIMAL, "SUPABASE_JWT_SECRET": secret, "REDIS_URL": "redis://:hidden@127.0.0.1"})
    for text in ("sb_secret_hush", secret, "hidden"):
        assert text not in repr(settings)
    with pytest.raises(SettingsError) as refused:
        read_settings({**MINIMAL, "SUPABASE_SECRET_KEY": "hush hush", "SUPABASE_JWT_SECRET": "tiny-secret"})
    assert "hush" not in str(refused.value)
    assert "tiny-secret" not in str(refused.value)


def test_lists_are_separated_by_commas():
    settings = read_settings(
        {
            **MINIMAL,
            "PRIVATE_TARGETS": "10.0.0.0/8, fd00::/8",
            "CORS_ORIGINS": "https://a.example, http://localhost:5173",
        }
    )
    assert set(settings.private_targets) == {ip_network("10.0.0.0/8"), ip_network("fd00::/8")}
    assert settings.cors_origins == {"https://a.example", "http://localhost:5173"}


def test_references_are_hosts_with_ports_or_none():
    read = {text: read_settings({**MINIMAL, "WORKER_REFERENCES": text}).worker_references for text in ("", "none")}
    assert read == {"": REFERENCES, "none": ()}
    named = read_settings({**MINIMAL, "WORKER_REFERENCES": "[2606:4700::1111]:443, ns.example:53"})
    assert named.worker_references == (("2606:4700::1111", 443), ("ns.example", 53))
    told = ",".join(f"{host}:{port}" for host, port in REFERENCES)
    assert f"Default: {told}\n" in (ROOT / ".env.example").read_text()


def test_limits_that_are_not_named_keep_their_defaults():
    limits = read_settings({**MINIMAL, "RATE_LIMITS": "write=5/second, costly=10/hour"}).rate_limits
    assert limits == {**RATE_LIMITS, "write": (5, 1), "costly": (10, 3_600)}
    assert read_settings(MINIMAL).rate_limits == RATE_LIMITS


def test_the_example_environment_tells_the_default_limits():
    units = {60: "minute"}
    told = ",".join(f"{name}={rate.quota}/{units[rate.window_seconds]}" for name, rate in RATE_LIMITS.items())
    assert f"# Default: {told}\n" in (ROOT / ".env.example").read_text()


def test_the_real_environment_wins_over_the_file(tmp_path, monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    env_file = tmp_path / ".env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in MINIMAL.items()) + "PORT=8001\n# PORT=1\n")
    monkeypatch.delenv("PORT", raising=False)
    assert load_settings(env_file).port == 8001
    monkeypatch.setenv("PORT", "8002")
    assert load_settings(env_file).port == 8002


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SUPABASE_URL", "https://<ref>.supabase.co"),  # as .env.example has it
        ("SUPABASE_URL", "https://abc.supabase.co:99999"),
        ("SUPABASE_URL", "https://abc.supabase.co/?x=1"),
        ("SUPABASE_URL", "https://user:hush@abc.supabase.co"),
        ("SUPABASE_URL", "https://[::1"),
        ("SUPABASE_URL", "https://ab c.supabase.co"),
        ("SUPABASE_URL", "postgresql://abc.supabase.co"),
        ("SUPABASE_PUBLISHABLE_KEY", "sb_secret_hush"),
        ("SUPABASE_PUBLISHABLE_KEY", "two words"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "null"),
        ("CORS_ORIGINS", "https://app.example.com/"),
        ("CORS_ORIGINS", "https://app.example.com#top"),
        ("CORS_ORIGINS", "https://me@app.example.com"),
        ("CORS_ORIGINS", "https://App.example.com"),
        ("CORS_ORIGINS", "https://app.example.com:99999"),
        ("CORS_ORIGINS", "https://good.example,app.example.com"),
        ("PRIVATE_TARGETS", "10.0.0.0/33"),
        ("PRIVATE_TARGETS", "localhost"),
        ("WORKER_REGION", "eu west"),
        ("WORKER_REFERENCES", "1.1.1.1:0"),
        ("WORKER_REFERENCES", "none,1.1.1.1:443"),
        ("PORT", "0"),
        ("PORT", "8000.0"),
        ("PORT", "٨٠٠٠"),
        ("WEB_CONCURRENCY", "-1"),
        ("TRUSTED_PROXIES", "-1"),
        ("TRUSTED_PROXIES", "9"),
        ("RATE_LIMITS", "600/minute"),
        ("RATE_LIMITS", "ordinary=600"),
        ("RATE_LIMITS", "ordinary=0/minute"),
        ("RATE_LIMITS", "ordinary=600/week"),
        ("RATE_LIMITS", "ordinary=1000000001/minute"),
        ("RATE_LIMITS", "ordinary=٦/minute"),
        ("RATE_LIMITS", "unheard_of=600/minute"),
        ("RATE_LIMITS", "ordinary=600/minute,ordinary=1/minute"),
    ],
)
def test_what_could_not_work_is_refused_by_name_and_a_secret_in_it_is_not_repeated(name, value):
    with pytest.raises(SettingsError) as refused:
        read_settings({**MINIMAL, name: value})
    (problem,) = refused.value.problems
    assert problem.startswith(f"{name} ")
    assert "hush" not in problem


@pytest.mark.parametrize("url", ["http://127.0.0.1:54321", "https://db.example.com/supabase/", "http://[::1]:54321"])
def test_supabase_may_stand_anywhere(url):
    assert read_settings({**MINIMAL, "SUPABASE_URL": url}).supabase_url == url.rstrip("/")


def test_the_command_line_needs_an_address_and_a_key_and_nothing_of_the_server():
    read = read_client_settings({"TOCSIN_URL": "https://tocsin.example.com/", "TOCSIN_API_KEY": "tocsin_k"})
    assert (read.api_url, read.api_key) == ("https://tocsin.example.com", "tocsin_k")
    assert "tocsin_k" not in repr(read)
    with pytest.raises(SettingsError) as refused:
        read_client_settings({"TOCSIN_URL": "tocsin.example.com", "TOCSIN_API_KEY": "two words"})
    assert [problem.split()[0] for problem in refused.value.problems] == ["TOCSIN_URL", "TOCSIN_API_KEY"]

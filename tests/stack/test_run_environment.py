"""What `make run` writes into .env, and what it leaves alone."""

import stat

import pytest
import run
from environment import prepare_environment
from ports import free_port
from stack import StackError

KEYS = {"SUPABASE_PUBLISHABLE_KEY", "SUPABASE_SECRET_KEY", "SUPABASE_JWT_SECRET", "SUPABASE_JWT_ISSUER"}


def test_the_first_run_writes_random_keys_that_only_the_owner_can_read(tmp_path):
    env_file, other = tmp_path / ".env", tmp_path / "other"
    first, second = prepare_environment(env_file, {}), prepare_environment(other, {})
    assert stat.S_IMODE(env_file.stat().st_mode) == 0o600
    assert first["SUPABASE_PUBLISHABLE_KEY"].startswith("sb_publishable_")
    assert first["SUPABASE_SECRET_KEY"].startswith("sb_secret_")
    assert first["PRIVATE_TARGETS"] == "127.0.0.1/32"
    assert first["WORKER_REFERENCES"] == "none"
    assert first["SUPABASE_JWT_SECRET"] != second["SUPABASE_JWT_SECRET"]


def test_the_next_run_finds_the_same_keys_and_writes_nothing(tmp_path):
    first = prepare_environment(tmp_path / ".env", {})
    text = (tmp_path / ".env").read_text()
    assert prepare_environment(tmp_path / ".env", {}) == first
    assert (tmp_path / ".env").read_text() == text


def test_what_somebody_wrote_stays_and_only_what_is_missing_is_added(tmp_path):
    mine = "SUPABASE_SECRET_KEY=sb_secret_mine\nSUPABASE_JWT_SECRET=\nPRIVATE_TARGETS=\nLOG_LEVEL=DEBUG"
    (tmp_path / ".env").write_text(mine + "\n")
    settings = prepare_environment(tmp_path / ".env", {})
    assert (tmp_path / ".env").read_text().startswith(mine)
    assert settings["SUPABASE_SECRET_KEY"] == "sb_secret_mine"
    assert settings.keys() >= KEYS
    assert all(settings[name] for name in KEYS)
    assert "PRIVATE_TARGETS" not in settings


def test_the_environment_wins_over_the_file(tmp_path):
    settings = prepare_environment(tmp_path / ".env", {"PORT": "8123", "SUPABASE_PORT": "54999", "LOG_LEVEL": "ERROR"})
    assert (settings["PORT"], settings["LOG_LEVEL"]) == ("8123", "ERROR")
    assert settings["SUPABASE_URL"] == "http://127.0.0.1:54999"


def test_settings_of_a_hosted_project_are_refused_before_anything_is_written(tmp_path):
    (tmp_path / ".env").write_text("SUPABASE_URL=https://abc.supabase.co\n")
    with pytest.raises(StackError, match="embedded Supabase"):
        prepare_environment(tmp_path / ".env", {})
    assert (tmp_path / ".env").read_text() == "SUPABASE_URL=https://abc.supabase.co\n"


def test_the_streams_have_a_port_of_their_own(tmp_path):
    assert prepare_environment(tmp_path / ".env", {})["STREAMS_PORT"] == "8001"
    assert prepare_environment(tmp_path / ".env", {"STREAMS_PORT": "9001"})["STREAMS_PORT"] == "9001"


@pytest.mark.parametrize("name", ["PORT", "STREAMS_PORT", "SUPABASE_PORT"])
def test_no_two_processes_share_a_port(name):
    shared = str(free_port())
    with pytest.raises(StackError, match="must be different ports"):
        run._refuse_taken_ports(
            {**dict.fromkeys(("PORT", "STREAMS_PORT", "SUPABASE_PORT"), shared), name: str(free_port())}
        )


@pytest.mark.parametrize("port", ["abc", "0", "65536", "-1", "\uff18\uff10"])
def test_a_port_that_is_none_is_refused(tmp_path, port):
    with pytest.raises(StackError, match="PORT must be a port"):
        prepare_environment(tmp_path / ".env", {"PORT": port})

"""The command as it is typed: what it asks, what it refuses, and how it ends."""

import json

import pytest

import server.cli.__main__ as command
from tests.cli.organisation import Organisation

FILE = (
    "monitors:\n  site: {target: 'https://example.com/'}\nchannels:\n  on-call: {url: 'https://hooks.example.com/a'}\n"
)


class Terminal:
    """A person at a terminal, or nobody: `answer` None."""

    def __init__(self, answer: str | None) -> None:
        self._answer = answer

    def isatty(self) -> bool:
        """Tell whether somebody can be asked."""
        return self._answer is not None

    def readline(self) -> str:
        """Return what they type."""
        return f"{self._answer}\n"


@pytest.fixture
def acme(monkeypatch):
    """An organisation in memory that the command speaks to."""
    organisation = Organisation()
    monkeypatch.setattr(command, "connect", lambda env: organisation)
    return organisation


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run the command in a folder of its own: `run(*arguments, file=None, answer=None) -> (code, stdout, stderr)`."""
    monkeypatch.chdir(tmp_path)
    for name in ("TOCSIN_URL", "TOCSIN_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments, file=None, answer=None):
        if file is not None:
            (tmp_path / "acme.yaml").write_text(file)
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        code = command.main(list(arguments))
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def test_a_dry_run_shows_and_does_nothing(acme, run):
    code, out, err = run("apply", "acme.yaml", "--dry-run", file=FILE)
    assert (code, err, acme.log) == (0, "", [])
    assert 'Acme at https://tocsin.example.com\n\n  + create channel "on-call" (on-call)\n' in out
    assert out.endswith("Plan: 2 to create, 0 stay as they are.\n")
    assert run("apply", "acme.yaml", "--dry-run", "--detailed-exitcode")[0] == 2


@pytest.mark.parametrize(("answer", "done"), [("yes", 2), ("y", 0), ("no", 0), ("", 0)])
def test_only_yes_is_taken_for_yes(acme, run, answer, done):
    code, _, err = run("apply", "acme.yaml", file=FILE, answer=answer)
    assert (len(acme.log), code) == (done, 0 if done else 1)
    assert "Do this?" in err


def test_where_nobody_can_be_asked_nothing_is_done(acme, run):
    code, _, err = run("apply", "acme.yaml", file=FILE)
    assert (code, acme.log) == (1, [])
    assert "Add --yes to do this, or --dry-run to look only." in err


def test_an_emptied_section_needs_more_than_a_yes(acme, run):
    run("apply", "acme.yaml", "--yes", file=FILE)
    code, _, err = run("apply", "acme.yaml", file="monitors: {}\n", answer="yes")
    assert (code, len(acme.log)) == (1, 2)
    assert "Nothing of what there is of monitors would be left. If that is meant, add --prune." in err
    assert run("apply", "acme.yaml", "--keep", "--yes")[0] == 0
    assert len(acme.log) == 2
    assert run("apply", "acme.yaml", "--prune", "--yes")[0] == 0
    assert acme.log[2:] == ["delete site"]


def test_yes_alone_deletes_nothing(acme, run):
    run("apply", "acme.yaml", "--yes", file=FILE + "  second: {url: 'https://hooks.example.com/b'}\n")
    code, _, err = run("apply", "acme.yaml", "--yes", file=FILE)
    assert (code, len(acme.log)) == (1, 3)
    assert "--yes does not delete: 1 would be lost." in err


def test_a_new_channels_secret_is_kept_where_it_is_wished_and_shown_nowhere(acme, run, tmp_path):
    code, out, err = run("apply", "acme.yaml", "--yes", "--channel-secrets", "kept", file=FILE)
    assert (code, (tmp_path / "kept").read_text()) == (0, "on-call: whsec_x\n")
    assert "whsec" not in out + err
    code, _, err = run(
        "apply", "acme.yaml", "--yes", "--channel-secrets", "kept", file=FILE.replace("on-call", "other")
    )
    assert code == 1, "no file of secrets is written over"


def test_faults_are_told_as_compilers_tell_them(acme, run):
    code, out, err = run("apply", "acme.yaml", "--yes", file="monitors:\n  a: {target: 7}\n")
    assert (code, out, err) == (1, "", "acme.yaml:2: monitors.a.target must be text; put it in quotes.\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["apply"], "the following arguments are required: FILE"),
        (["import", "nagios", "a"], "invalid choice: 'nagios'"),
    ],
)
def test_a_wrong_command_ends_with_one_since_two_means_something_to_do(run, capsys, arguments, words):
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 1
    assert words in capsys.readouterr().err


def test_what_is_missing_in_the_environment_is_told_at_once(run):
    code, _, err = run("apply", "acme.yaml", file=FILE)
    assert (code, err) == (1, "TOCSIN_URL is missing\nTOCSIN_API_KEY is missing\n")


def test_a_file_that_is_not_there_is_told(run):
    assert run("apply", "nowhere.yaml")[2] == "nowhere.yaml cannot be read: No such file or directory.\n"


def test_an_import_may_be_applied_at_once_and_deletes_nothing(acme, run, tmp_path):
    run("apply", "acme.yaml", "--yes", file=FILE)
    monitor = {
        "name": "Login",
        "type": "http",
        "url": "https://example.com/login",
        "basic_auth_user": "kuma",
        "basic_auth_pass": "hunter2",
    }
    (tmp_path / "backup.json").write_text(json.dumps({"monitorList": [monitor]}))
    code, out, err = run("import", "uptime-kuma", "backup.json", "--apply", "--yes")
    assert (code, acme.log[2:]) == (0, ["create Login"])
    assert acme.secrets == {"Login": "hunter2"}
    assert "hunter2" not in out + err
    code, out, err = run("import", "uptime-kuma", "backup.json")
    assert code == 0
    assert "password: ${LOGIN_PASSWORD}" in out
    assert "Set these variables" in err


def test_what_comes_from_elsewhere_does_not_steer_the_terminal(acme, run):
    acme.create("/v1/monitors", {"name": "evil\x1b]0;x\x07\u202e", "kind": "http", "options": {}}, "k")
    _, out, _ = run("apply", "acme.yaml", "--dry-run", file=FILE)
    assert "\x1b" not in out
    assert "\u202e" not in out

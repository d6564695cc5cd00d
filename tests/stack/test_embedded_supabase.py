"""The embedded Supabase answers like a hosted one, on both drivers: a test for each repair that its README lists."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import psycopg
import pytest
import requests
from ports import free_port, is_taken
from stack import Keys, PgliteDir, PostgresUrl, Stack, StackError, running_stack
from throwaway_postgres import open_database

from tests.stack.conftest import PASSWORD, EmbeddedSupabase, embed, make_keys, sign_up_at

LOCAL = Path(__file__).parent.parent.parent / "supabase" / "local"
MIGRATION = """
create extension if not exists btree_gist with schema extensions;
create extension if not exists pgcrypto with schema extensions;
create table public.migrated_by as select current_user::text as name;

create table public.open_to_all (id int primary key);
create table public.closed (id int primary key);
revoke all on public.closed from anon, authenticated;

create table public.notes (
  id bigint generated always as identity primary key,
  owner uuid not null default auth.uid() references auth.users (id) on delete cascade,
  label text check (char_length(label) < 9),
  hidden text
);
alter table public.notes enable row level security;
revoke all on public.notes from anon, authenticated;
grant select (id, owner, label), insert (label), update (label) on public.notes to authenticated;
create policy "owners see their notes" on public.notes for select to authenticated using (owner = (select auth.uid()));
create policy "owners add notes" on public.notes for insert to authenticated with check (owner = (select auth.uid()));

create table public.samples (
  instant timestamptz, local timestamp, exact numeric, big bigint, bytes bytea, document jsonb
);
insert into public.samples values (
  '2026-01-01T00:00:00.5Z', '2026-01-01T00:00:00.123456', 1.10, 9007199254740993, 'hi', '{"a": [1, "2"]}'
);
create function public.kind_of(argument jsonb) returns text language sql immutable as
  $$ select jsonb_typeof(argument) $$;
create function public.fail(state text) returns void language plpgsql as
  $$ begin raise exception using errcode = state, message = 'm', detail = 'd', hint = 'h'; end $$;
"""


@pytest.fixture(scope="module", params=["postgres", "pglite"])
def stack(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    write_migration(folder, MIGRATION)
    with ExitStack() as cleanup:
        if request.param == "pglite":
            database: PgliteDir | PostgresUrl = PgliteDir(folder / "pgdata")
            url = None
        else:
            url = cleanup.enter_context(open_database(request.getfixturevalue("postgres_server")))
            database = PostgresUrl(url)
        yield embed(cleanup.enter_context(run_in(folder, database)), url)


@pytest.fixture(scope="module")
def user(stack):
    return sign_up_at(stack)


def write_migration(folder: Path, sql: str, name: str = "20260101000001_drift.sql") -> None:
    (folder / "migrations").mkdir(exist_ok=True)
    (folder / "migrations" / name).write_text(sql)


def run_in(folder: Path, database: PgliteDir | PostgresUrl, keys: Keys | None = None) -> AbstractContextManager[Stack]:
    return running_stack(
        database,
        keys or make_keys(),
        port=free_port(),
        log_path=folder / "supabase.log",
        migrations_dir=folder / "migrations",
    )


def call(stack: EmbeddedSupabase, method: str, path: str, token: str | None = None, **kwargs: Any) -> requests.Response:
    headers = {"apikey": stack.publishable_key, **kwargs.pop("headers", {})}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return requests.request(method, f"{stack.url}/rest/v1{path}", headers=headers, timeout=60, **kwargs)


def service(stack: EmbeddedSupabase, method: str, path: str, **kwargs: Any) -> requests.Response:
    headers = {"apikey": stack.secret_key, **kwargs.pop("headers", {})}
    return requests.request(method, f"{stack.url}/rest/v1{path}", headers=headers, timeout=60, **kwargs)


def test_somebody_signs_up_and_signs_in_again(stack):
    user = sign_up_at(stack)
    answer = requests.post(
        f"{stack.url}/auth/v1/token?grant_type=password",
        headers={"apikey": stack.publishable_key},
        json={"email": user.email, "password": PASSWORD},
        timeout=30,
    )
    assert answer.status_code == 200
    claims = jwt.decode(answer.json()["access_token"], stack.jwt_secret, algorithms=["HS256"], audience="authenticated")
    assert claims["sub"] == str(user.id)
    assert claims["role"] == "authenticated"


def test_a_revoked_table_stays_revoked(stack, user):
    for _ in range(2):
        answer = call(stack, "GET", "/closed", user.access_token)
        assert (answer.status_code, answer.json()["code"]) == (403, "42501")


def test_column_grants_are_enforced(stack, user):
    own = call(stack, "POST", "/notes", user.access_token, json={"label": "mine"}, headers={"Prefer": "return=minimal"})
    assert own.status_code == 201
    assert call(stack, "GET", "/notes?select=label", user.access_token).json()[0] == {"label": "mine"}
    assert call(stack, "GET", "/notes?select=hidden", user.access_token).json()["code"] == "42501"
    assert call(stack, "POST", "/notes", user.access_token, json={"hidden": "x"}).json()["code"] == "42501"
    assert call(stack, "DELETE", "/notes?id=eq.1", user.access_token).json()["code"] == "42501"


def test_a_row_belongs_to_its_owner_alone(stack, user):
    call(stack, "POST", "/notes", user.access_token, json={"label": "own"}, headers={"Prefer": "return=minimal"})
    stranger = sign_up_at(stack)
    assert call(stack, "GET", "/notes?select=id", stranger.access_token).json() == []


def test_a_new_table_is_granted_as_hosted_defaults_grant_it(stack, user):
    assert call(stack, "GET", "/open_to_all", user.access_token).json() == []
    assert call(stack, "GET", "/open_to_all").json() == []


def test_migrations_run_as_postgres(stack):
    assert service(stack, "GET", "/migrated_by").json() == [{"name": "postgres"}]


@pytest.mark.parametrize(
    ("sqlstate", "status"),
    [
        ("23514", 400),
        ("23505", 409),
        ("23503", 409),
        ("P0001", 400),
        ("40001", 500),
        ("40P01", 500),
        ("57014", 500),
        ("08006", 503),
        ("53300", 503),
        ("XX000", 500),
        ("TC001", 400),
        ("PT409", 409),
        ("PT422", 422),
    ],
)
def test_an_sqlstate_arrives_with_its_own_status(stack, user, sqlstate, status):
    answer = call(stack, "POST", "/rpc/fail", user.access_token, json={"state": sqlstate})
    assert answer.status_code == status
    assert answer.json() == {"code": sqlstate, "message": "m", "details": "d", "hint": "h"}


def test_a_violated_check_names_its_constraint(stack, user):
    answer = call(stack, "POST", "/notes", user.access_token, json={"label": "far too long"})
    assert (answer.status_code, answer.json()["code"]) == (400, "23514")
    assert "notes_label_check" in answer.json()["message"]


def test_values_are_written_as_postgrest_writes_them(stack):
    text = service(stack, "GET", "/samples").text
    assert '"instant":"2026-01-01T00:00:00.5+00:00"' in text
    assert '"local":"2026-01-01T00:00:00.123456"' in text
    assert re.search(r'"exact":1\.10[,}]', text)
    assert re.search(r'"big":9007199254740993[,}]', text)
    assert '"bytes":"\\\\x6869"' in text
    assert '"document":{"a":[1,"2"]}' in text


def test_bytea_and_jsonb_arrive_as_they_were_sent(stack):
    sent = {"bytes": "\\x00ff", "document": {"text": "x", "list": [1, None]}}
    answer = service(stack, "POST", "/samples", json=sent, headers={"Prefer": "return=representation"})
    assert answer.status_code == 201
    assert {name: answer.json()[0][name] for name in sent} == sent


@pytest.mark.parametrize(("argument", "kind"), [({"a": 1}, "object"), ([1], "array"), (1, "number"), (True, "boolean")])
def test_a_jsonb_argument_arrives_as_what_it_is(stack, user, argument, kind):
    assert call(stack, "POST", "/rpc/kind_of", user.access_token, json={"argument": argument}).json() == kind


def test_too_many_values_at_once_do_not_wedge_the_server(stack):
    rows = [{"id": number} for number in range(40_000)]
    answer = service(stack, "POST", "/open_to_all", json=rows, headers={"Prefer": "return=minimal"})
    # PGlite takes no more than 32,767 bind values; a real Postgres takes these.
    assert answer.status_code == 201 if stack.database_url else answer.json()["code"] == "54000"
    assert service(stack, "GET", "/open_to_all?limit=1").status_code == 200


@pytest.mark.parametrize("role", ["postgres", "supabase_admin", "authenticator", "nobody"])
def test_a_token_cannot_ask_for_a_role_outside_the_api(stack, role):
    claims = {"sub": str(uuid4()), "aud": "authenticated", "role": role, "exp": int(time.time()) + 60}
    token = jwt.encode(claims, stack.jwt_secret, algorithm="HS256")
    answer = call(stack, "GET", "/open_to_all", token)
    assert answer.status_code in (401, 403)


def test_a_request_without_a_key_is_refused(stack):
    assert requests.get(f"{stack.url}/rest/v1/open_to_all", timeout=30).status_code == 401


def test_sql_sees_who_asks_through_request_jwt_claims(supabase):
    somebody = uuid4()
    with psycopg.connect(supabase.database_url) as connection:
        connection.execute("select set_config('request.jwt.claims', %s, true)", [f'{{"sub": "{somebody}"}}'])
        connection.execute("set local role authenticated")
        assert connection.execute("select auth.uid()").fetchone() == (somebody,)


def test_postgres_is_no_superuser_on_a_real_server(supabase):
    with psycopg.connect(supabase.database_url) as connection:
        query = "select rolsuper or current_user = 'postgres' from pg_roles where rolname = 'postgres'"
        assert connection.execute(query).fetchone() == (bool(os.environ.get("TEST_DATABASE_URL")),)


def test_our_migrations_come_up_on_pglite(embedded_pglite):
    assert sign_up_at(embedded_pglite).access_token


def test_a_second_start_keeps_the_data(tmp_path):
    write_migration(tmp_path, "create table public.kept (id int primary key);")
    keys = make_keys()
    with run_in(tmp_path, PgliteDir(tmp_path / "pgdata"), keys) as stack:
        assert service(embed(stack, None), "POST", "/kept", json={"id": 7}).status_code == 201
    write_migration(tmp_path, "create table public.added ();", "20260101000002_more.sql")
    with run_in(tmp_path, PgliteDir(tmp_path / "pgdata"), keys) as stack:
        assert service(embed(stack, None), "GET", "/kept").json() == [{"id": 7}]
        assert service(embed(stack, None), "GET", "/added").json() == []


def test_a_migration_that_fails_is_named_with_its_line(tmp_path):
    write_migration(tmp_path, "create table public.fine ();\n\nselect nonsense;\n")
    with (
        pytest.raises(StackError, match=r'20260101000001_drift\.sql:3: column "nonsense" does not exist'),
        run_in(tmp_path, PgliteDir(tmp_path / "pgdata")),
    ):
        pass


def test_an_edited_migration_is_refused_and_a_folder_has_one_server(tmp_path):
    write_migration(tmp_path, "create table public.one ();")
    database = PgliteDir(tmp_path / "pgdata")
    with run_in(tmp_path, database), pytest.raises(StackError, match="already running"), run_in(tmp_path, database):
        pass
    write_migration(tmp_path, "create table public.two ();")
    with pytest.raises(StackError, match="was edited after it had been applied"), run_in(tmp_path, database):
        pass


def test_the_server_ends_with_the_process_that_started_it(tmp_path):
    write_migration(tmp_path, "select 1;")
    port = free_port()
    code = f"""
import sys, time
sys.path.insert(0, {str(LOCAL)!r})
from pathlib import Path
from stack import Keys, PgliteDir, running_stack
folder = Path({str(tmp_path)!r})
keys = Keys("sb_publishable_x", "sb_secret_x", "s" * 40)
with running_stack(PgliteDir(folder / "pgdata"), keys, port={port},
                   log_path=folder / "supabase.log", migrations_dir=folder / "migrations"):
    print("up", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while is_taken(port):
        assert time.monotonic() < deadline, "the server outlived its parent"
        time.sleep(0.05)

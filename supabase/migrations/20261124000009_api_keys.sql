-- What: API keys, for servers and CI, and what it takes for row-level security to know who asks with one.
-- Why:  the same routes and the same policies serve people and keys. A key's request comes in as `anon` with the key in
--       the header x-tocsin-key (PostgREST hands headers to SQL as `request.headers`); the functions that every policy asks,
--       private.my_orgs and private.my_role_in, look it up. So a key is revoked everywhere at the next statement, what it may
--       see is exactly what a member of the same rank may, and no secret key of the project is involved.

create table public.api_keys (
  id uuid primary key default gen_random_uuid(),
  org_id uuid not null references public.organisations (id) on delete cascade,
  name text not null constraint api_keys_name_length check (char_length(name) between 1 and 100),
  -- What a person recognises a key by; the secret itself is stored nowhere.
  prefix text not null constraint api_keys_prefix_form check (prefix ~ '^tocsin_[A-Za-z0-9]{8}$'),
  secret_hash text not null
    constraint api_keys_secret_hash_form check (secret_hash ~ '^[0-9a-f]{64}$')
    constraint api_keys_secret_is_new unique,
  scopes text[] not null constraint api_keys_scopes check (
    cardinality(scopes) between 1 and 5
    and scopes <@ array['read', 'write', 'admin', 'metrics:write', 'pings:write']
  ),
  created_by uuid not null default auth.uid(),
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  last_used_at timestamptz,
  revoked_at timestamptz,
  -- Checked at the end: a key is said to be replaced before its successor is there, and so leaves it its place.
  replaced_by uuid references public.api_keys (id) on delete set null deferrable initially deferred,
  version integer not null default 1
);
create index api_keys_by_organisation on public.api_keys (org_id, created_at desc, id desc);
create index api_keys_by_successor on public.api_keys (replaced_by);
alter table public.api_keys enable row level security;
revoke all on public.api_keys from anon, authenticated;
grant select (id, org_id, name, prefix, scopes, created_by, created_at, expires_at, last_used_at, revoked_at, replaced_by, version)
  on public.api_keys to authenticated;

-- The key that this request was sent with; no row where it came with a user's token, without a key, or with one that is
-- unknown, revoked or past its time.
--
-- This function and those that every policy asks are in PL/pgSQL, which keeps a session's plans; the body of a function
-- in SQL is planned anew in each statement that calls it, a quarter of a millisecond each time.
create function private.key_in_use() returns setof public.api_keys
language plpgsql stable security definer rows 1
set search_path = ''
as $$
declare
  secret constant text := nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-tocsin-key';
begin
  if secret is not null and auth.uid() is null then
    return query
      select k.*
      from public.api_keys k
      where k.secret_hash = encode(sha256(convert_to(secret, 'UTF8')), 'hex')
        and k.revoked_at is null
        and (k.expires_at is null or k.expires_at > now());
  end if;
end
$$;

-- Which member a key is as good as. Null: it may write metrics or pings, and see nothing.
create function private.role_of_scopes(scopes text[]) returns text
language sql immutable parallel safe
set search_path = ''
as $$
  select case when 'admin' = any (scopes) then 'admin' when 'write' = any (scopes) then 'editor'
    when 'read' = any (scopes) then 'viewer' end
$$;

-- The organisations in which the caller, a person or a key, has at least this role.
create or replace function private.my_orgs(minimum_role text default 'viewer') returns setof uuid
language plpgsql stable security definer
set search_path = ''
as $$
declare
  caller constant uuid := auth.uid();
begin
  if caller is not null then
    return query
      select m.org_id
      from public.memberships m
      where m.user_id = caller and private.role_rank(m.role) >= private.role_rank(minimum_role);
  else
    return query
      select k.org_id
      from private.key_in_use() k
      where private.role_rank(private.role_of_scopes(k.scopes)) >= private.role_rank(minimum_role);
  end if;
end
$$;

-- What the caller is in one organisation, null where nothing.
create function private.my_role_in(of_org uuid) returns text
language plpgsql stable security definer
set search_path = ''
as $$
declare
  caller constant uuid := auth.uid();
begin
  if caller is not null then
    return (select m.role from public.memberships m where m.org_id = of_org and m.user_id = caller);
  end if;
  return (select private.role_of_scopes(k.scopes) from private.key_in_use() k where k.org_id = of_org);
end
$$;
create or replace function public.my_role(organisation public.organisations) returns text
language sql stable
set search_path = ''
as $$
  select private.my_role_in(organisation.id)
$$;

-- Who acts: a user, a key, or (null) the system itself.
create function private.actor_id() returns uuid
language plpgsql stable security definer
set search_path = ''
as $$
begin
  return coalesce(auth.uid(), (select k.id from private.key_in_use() k));
end
$$;
create function private.actor_kind() returns text
language plpgsql stable security definer
set search_path = ''
as $$
begin
  return case when auth.uid() is not null then 'user'
    when exists (select from private.key_in_use()) then 'key' else 'system' end;
end
$$;
-- The session of Supabase Auth that a person acts in.
create function private.session_id() returns uuid
language sql stable
set search_path = ''
as $$
  select nullif(auth.jwt() ->> 'session_id', '')::uuid
$$;

-- Keys come in as `anon`: give it what signed-in people have, policy by policy. Without a key it still sees nothing.
grant usage on schema private to anon;
do $$
declare
  of_table text;
  policy_name text;
begin
  for of_table, policy_name in
    select tablename, policyname from pg_catalog.pg_policies
    where schemaname = 'public' and tablename in ('organisations', 'memberships', 'events', 'monitors', 'intervals',
      'check_results', 'incidents', 'incident_comments', 'channels', 'deliveries')
  loop
    execute format('alter policy %I on public.%I to authenticated, anon', policy_name, of_table);
  end loop;
end
$$;
grant select on public.organisations, public.memberships, public.monitors, public.intervals, public.check_results,
  public.incidents, public.incident_comments, public.channels, public.deliveries to anon;
grant update (name) on public.organisations to anon;
grant delete on public.monitors, public.channels to anon;
grant insert (org_id, name, kind, target, interval_seconds, timeout_seconds, retry_interval_seconds, fail_threshold,
  recover_threshold, degraded_after_ms, expected_status, max_redirects, paused) on public.monitors to anon;
grant update (name, target, interval_seconds, timeout_seconds, retry_interval_seconds, fail_threshold,
  recover_threshold, degraded_after_ms, expected_status, max_redirects, paused) on public.monitors to anon;
grant update (state) on public.incidents to anon;
grant insert (org_id, incident_id, body) on public.incident_comments to anon;
revoke execute on function private.key_in_use(), private.role_of_scopes(text[]), private.my_role_in(uuid),
  private.actor_id(), private.actor_kind(), private.session_id() from public, anon, authenticated;
grant execute on function private.my_role_in(uuid), private.actor_id(), private.actor_kind(), private.session_id()
  to anon, authenticated, service_role;
grant execute on function private.my_orgs(text), private.role_rank(text), private.are_status_ranges(text[]),
  private.last_observation(uuid), private.rfc3339(timestamptz), public.my_role(public.organisations) to anon;
grant execute on function public.monitor_history(uuid, timestamptz, timestamptz),
  public.create_channel(uuid, text, text, text, text), public.test_channel(uuid), public.retry_delivery(uuid) to anon;

-- Keys and invitations are the admins' business. Everybody hears of their own membership, so that losing it is seen too.
alter policy "members read what happened in their organisations" on public.events using (
  (
    org_id = any (array(select private.my_orgs()))
    and (subject_kind not in ('api_key', 'invitation') or org_id = any (array(select private.my_orgs('admin'))))
  )
  or (subject_kind = 'membership' and subject_id = (select auth.uid()))
);
create policy "admins see their organisation's keys" on public.api_keys
  for select to authenticated using (org_id = any (array(select private.my_orgs('admin'))));

-- Who did it may be a key now, and the trail says in which session a person did.
alter table public.events add column session_id uuid;
alter table public.events drop constraint events_actor_kind;
alter table public.events add constraint events_actor_kind check (actor_kind in ('user', 'key', 'system'));
-- What every member may read of an event. What it was before, and in which session somebody did it, is for admins, whom
-- the audit trail (audit.sql) answers.
revoke select on public.events from authenticated;
grant select (seq, xid, org_id, occurred_at, actor_kind, actor_id, type, subject_kind, subject_id, after)
  on public.events to authenticated, anon;

-- As before, with keys and sessions; `revoked` has a name; hashes of secrets stay out of the log.
create or replace function private.append_event() returns trigger
language plpgsql security definer
set search_path = ''
as $$
declare
  subject_kind constant text := tg_argv[0];
  hidden constant text[] := array['secret_hash', 'token_hash'];
  old_row constant jsonb := case when tg_op <> 'INSERT' then to_jsonb(old) - hidden end;
  new_row constant jsonb := case when tg_op <> 'DELETE' then to_jsonb(new) - hidden end;
  any_row constant jsonb := coalesce(new_row, old_row);
  what text := case tg_op when 'INSERT' then 'created' when 'UPDATE' then 'updated' else 'deleted' end;
begin
  if tg_op = 'UPDATE' and new_row ->> 'paused' is distinct from old_row ->> 'paused' then
    what := case new_row ->> 'paused' when 'true' then 'paused' else 'resumed' end;
  elsif tg_op = 'UPDATE' and new_row ->> 'state' is distinct from old_row ->> 'state' then
    what := new_row ->> 'state';
  elsif tg_op = 'UPDATE' and new_row ->> 'revoked_at' is distinct from old_row ->> 'revoked_at' then
    what := 'revoked';
  end if;
  insert into public.events (org_id, actor_kind, actor_id, session_id, type, subject_kind, subject_id, before, after)
  values (
    coalesce(any_row ->> 'org_id', any_row ->> 'id')::uuid,
    private.actor_kind(),
    private.actor_id(),
    private.session_id(),
    subject_kind || '.' || what,
    subject_kind,
    coalesce(any_row ->> 'id', any_row ->> 'user_id')::uuid,
    old_row,
    new_row
  );
  return null;
end
$$;
create or replace function private.note_delivery_event(delivery public.deliveries, what text) returns void
language sql
set search_path = ''
as $$
  insert into public.events (org_id, actor_kind, actor_id, session_id, type, subject_kind, subject_id, after)
  values (delivery.org_id, private.actor_kind(), private.actor_id(), private.session_id(), 'delivery.' || what, 'delivery',
    delivery.id, to_jsonb(delivery) - 'payload' - 'lease_token' - 'lease_until')
$$;
create trigger append_event after insert or delete or update of name, scopes, expires_at, revoked_at, replaced_by
  on public.api_keys for each row execute function private.append_event('api_key');

-- Comments and incidents name the key that did it.
alter table public.incident_comments alter column author_id set default private.actor_id();
alter policy "editors comment on their organisation's incidents" on public.incident_comments with check (
  org_id = any (array(select private.my_orgs('editor')))
  and author_id = (select private.actor_id())
  and exists (select from public.incidents i where i.id = incident_id and i.org_id = incident_comments.org_id)
);
create or replace function private.prepare_incident_change() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  if new.state = old.state then
    return new;
  end if;
  if old.state = 'resolved' or new.state = 'open' then
    raise exception 'incident_resolved' using errcode = 'PT409', detail = 'The incident has been resolved already.';
  end if;
  new.version := old.version + 1;
  if new.state = 'acknowledged' then
    new.acknowledged_at := now();
    new.acknowledged_by := (select private.actor_id());
  elsif new.resolved_at is null then
    new.resolved_at := now();
    new.resolved_by := (select private.actor_id());
    new.resolution := 'by_hand';
  end if;
  return new;
end
$$;
create or replace function private.end_incident_of_unwatched_monitor() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  update public.incidents
  set state = 'resolved', resolved_at = now(), resolved_by = (select private.actor_id()),
      resolution = case tg_op when 'DELETE' then 'monitor_deleted' else 'monitor_paused' end
  where monitor_id = old.id and resolved_at is null;
  return case tg_op when 'DELETE' then old else new end;
end
$$;

-- What a key is, for whoever sends it; null where it is none. Notes its use, at most once a minute.
create function public.my_key() returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  key public.api_keys;
begin
  select * into key from private.key_in_use();
  if key.id is null then
    return null;
  end if;
  update public.api_keys set last_used_at = now()
  where id = key.id and (last_used_at is null or last_used_at < now() - interval '1 minute');
  return jsonb_build_object('id', key.id, 'org_id', key.org_id, 'scopes', key.scopes, 'expires_at', private.rfc3339(key.expires_at));
end
$$;

-- The row as its reader may see it.
create function private.shown_key(key public.api_keys) returns jsonb
language sql stable
set search_path = ''
as $$
  select to_jsonb(key) - 'secret_hash'
$$;

-- Keys are made, rotated and revoked by people: a key that could make keys would outlive its own revocation.
create function private.require_person_as(of_org uuid, minimum_role text) returns void
language plpgsql stable security definer
set search_path = ''
as $$
begin
  perform private.require_role(of_org, minimum_role);
  if (select auth.uid()) is null then
    raise exception 'users_only' using errcode = 'PT403', detail = 'This needs a signed-in person, not an API key.';
  end if;
end
$$;

-- Creates a key, of which the database learns the hash alone. PT404 for strangers, PT403 below admin.
create function public.create_api_key(
  org_id uuid, name text, prefix text, secret_hash text, scopes text[], expires_at timestamptz
) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  created public.api_keys;
begin
  perform private.require_person_as(create_api_key.org_id, 'admin');
  insert into public.api_keys (org_id, name, prefix, secret_hash, scopes, expires_at)
  values (create_api_key.org_id, create_api_key.name, create_api_key.prefix, create_api_key.secret_hash,
    create_api_key.scopes, create_api_key.expires_at)
  returning * into created;
  return private.shown_key(created);
end
$$;

-- Makes a successor with the same name, scopes and lifetime, and lets the old key live for `overlap_seconds` more.
-- PT409 api_key_ended where it has been revoked, has run out or has a successor already, PT409 rotation_running while the
-- key before it still goes on: a rotated key counts for no quota, so that more than two in a row would be any number.
create function public.rotate_api_key(key_id uuid, prefix text, secret_hash text, overlap_seconds integer) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  old_key public.api_keys;
  created public.api_keys;
  successor_id constant uuid := gen_random_uuid();
begin
  select * into old_key from public.api_keys k where k.id = rotate_api_key.key_id for update;
  perform private.require_person_as(old_key.org_id, 'admin');
  if old_key.revoked_at is not null or old_key.expires_at <= now() or old_key.replaced_by is not null then
    raise exception 'api_key_ended' using errcode = 'PT409',
      detail = 'The key has been revoked, has run out or was rotated before. Create a new one.';
  elsif overlap_seconds not between 0 and 604800 then
    raise exception 'overlap_out_of_range' using errcode = 'PT422',
      detail = 'The old key goes on for 0 to 604,800 seconds: a week at most.', hint = '{"pointer": "/overlap_seconds"}';
  elsif exists (
    select from public.api_keys before
    where before.replaced_by = old_key.id and before.revoked_at is null and before.expires_at > now()
  ) then
    raise exception 'rotation_running' using errcode = 'PT409',
      detail = 'The key before this one still goes on. Revoke it, or wait for its end, then rotate this one.';
  end if;
  update public.api_keys k
  set replaced_by = successor_id, version = k.version + 1,
      expires_at = least(k.expires_at, now() + make_interval(secs => overlap_seconds))
  where k.id = old_key.id;
  insert into public.api_keys (id, org_id, name, prefix, secret_hash, scopes, expires_at)
  values (successor_id, old_key.org_id, old_key.name, rotate_api_key.prefix, rotate_api_key.secret_hash, old_key.scopes,
    now() + (old_key.expires_at - old_key.created_at))
  returning * into created;
  return private.shown_key(created);
end
$$;

-- Revokes a key, at once and for good; doing it twice changes nothing.
create function public.revoke_api_key(key_id uuid, expected_version integer default null) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  key public.api_keys;
begin
  select * into key from public.api_keys k where k.id = revoke_api_key.key_id for update;
  perform private.require_person_as(key.org_id, 'admin');
  if key.version <> expected_version then
    raise exception 'precondition_failed' using errcode = 'PT412', detail = 'The key has changed since it was read.';
  end if;
  if key.revoked_at is null then
    update public.api_keys k set revoked_at = now(), version = k.version + 1 where k.id = key.id returning * into key;
  end if;
  return private.shown_key(key);
end
$$;
revoke execute on function public.my_key(), public.create_api_key(uuid, text, text, text, text[], timestamptz),
  public.rotate_api_key(uuid, text, text, integer), public.revoke_api_key(uuid, integer) from public, anon, authenticated;
grant execute on function public.my_key() to anon;
grant execute on function public.create_api_key(uuid, text, text, text, text[], timestamptz),
  public.rotate_api_key(uuid, text, text, integer), public.revoke_api_key(uuid, integer) to authenticated;
revoke execute on function private.shown_key(public.api_keys), private.require_person_as(uuid, text)
  from public, anon, authenticated;

-- As before; a key has no user to own what it would found.
create or replace function public.create_organisation(name text) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  created public.organisations;
begin
  if (select auth.uid()) is null then
    raise exception 'users_only' using errcode = 'PT403', detail = 'This needs a signed-in person, not an API key.';
  elsif coalesce((auth.jwt() ->> 'is_anonymous')::boolean, false) then
    raise exception 'anonymous_users_create_nothing' using errcode = 'PT403',
      detail = 'Anonymous users cannot create organisations. Add an e-mail address to the account first.';
  end if;
  insert into public.organisations (name) values (create_organisation.name) returning * into created;
  insert into public.memberships (org_id, user_id, role) values (created.id, (select auth.uid()), 'owner');
  return to_jsonb(created) || jsonb_build_object('my_role', 'owner');
end
$$;

-- What: the private schema, the helpers that every policy and trigger uses, and the event log.
-- Why:  `public` is what PostgREST serves. Whatever only our own functions may touch lives in `private`, which it never does.

create schema if not exists extensions;
create extension if not exists btree_gist with schema extensions;

create schema private;
revoke all on schema private from public;
-- Policies run as the caller, so the caller must be able to reach the helper functions; each one is granted by name.
grant usage on schema private to authenticated, service_role;

-- RFC 3339 in UTC, with six digits: the only shape in which a time leaves this database inside a jsonb document.
create function private.rfc3339(moment timestamptz) returns text
language sql stable
set search_path = ''
as $$
  select to_char(moment at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;
revoke execute on function private.rfc3339(timestamptz) from public;

-- viewer < editor < admin < owner.
create function private.role_rank(role text) returns integer
language sql immutable parallel safe
set search_path = ''
as $$
  select array_position(array['viewer', 'editor', 'admin', 'owner'], role)
$$;

-- The event log: the audit trail, and the feed of everything that follows changes. Appended to by triggers, in the
-- transaction of the change itself. `xid` lets a reader serve only what lies below its snapshot's xmin, so that an
-- event that commits late is never skipped. It has no foreign key to the organisation: the trail outlives it.
create table public.events (
  seq bigint generated always as identity primary key,
  xid xid8 not null default pg_current_xact_id(),
  org_id uuid not null,
  occurred_at timestamptz not null default now(),
  actor_kind text not null constraint events_actor_kind check (actor_kind in ('user', 'system')),
  actor_id uuid,
  type text not null,
  subject_kind text not null,
  subject_id uuid not null,
  before jsonb,
  after jsonb
);
create index events_by_organisation on public.events (org_id, xid, seq);
alter table public.events enable row level security;
revoke all on public.events from anon, authenticated;
grant select on public.events to authenticated;

-- Appends one event for one changed row. The trigger's argument names the kind of subject. A pause is named so, a change
-- of `state` after the new state (monitor.down, incident.acknowledged), any other change after what was done.
create function private.append_event() returns trigger
language plpgsql security definer
set search_path = ''
as $$
declare
  subject_kind constant text := tg_argv[0];
  old_row constant jsonb := case when tg_op <> 'INSERT' then to_jsonb(old) end;
  new_row constant jsonb := case when tg_op <> 'DELETE' then to_jsonb(new) end;
  any_row constant jsonb := coalesce(new_row, old_row);
  actor constant uuid := (select auth.uid());
  what text := case tg_op when 'INSERT' then 'created' when 'UPDATE' then 'updated' else 'deleted' end;
begin
  if tg_op = 'UPDATE' and new_row ->> 'paused' is distinct from old_row ->> 'paused' then
    what := case new_row ->> 'paused' when 'true' then 'paused' else 'resumed' end;
  elsif tg_op = 'UPDATE' and new_row ->> 'state' is distinct from old_row ->> 'state' then
    what := new_row ->> 'state';
  end if;
  insert into public.events (org_id, actor_kind, actor_id, type, subject_kind, subject_id, before, after)
  values (
    coalesce(any_row ->> 'org_id', any_row ->> 'id')::uuid,
    case when actor is null then 'system' else 'user' end,
    actor,
    subject_kind || '.' || what,
    subject_kind,
    coalesce(any_row ->> 'id', any_row ->> 'user_id')::uuid,
    old_row,
    new_row
  );
  return null;
end
$$;
revoke execute on function private.append_event() from public, anon, authenticated;

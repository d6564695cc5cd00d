-- What: monitors (what people write), their schedules (what the worker writes), and the ledger of intervals.
-- Why:  a schedule changes at every check, a monitor only when a person or a transition changes it. Keeping them apart
--       keeps monitors small, their version meaningful, and the API's reads away from the worker's writes.

-- `404` or `200-299`, at least one and at most twenty of them. The worker reads them, so nothing else may stand there,
-- whichever way it came in. Runs as the writer, who must be able to reach it.
create function private.are_status_ranges(ranges text[]) returns boolean
language sql immutable parallel safe
set search_path = ''
as $$
  select cardinality(ranges) between 1 and 20 and array_ndims(ranges) = 1 and not exists (
    select from unnest(ranges) as range
    where range is null or range !~ '^[1-5][0-9]{2}(-[1-5][0-9]{2})?$' or left(range, 3) > right(range, 3)
  )
$$;
revoke execute on function private.are_status_ranges(text[]) from public;
grant execute on function private.are_status_ranges(text[]) to authenticated, service_role;

create table public.monitors (
  id uuid primary key default gen_random_uuid(),
  org_id uuid not null references public.organisations (id) on delete cascade,
  name text not null constraint monitors_name_length check (char_length(name) between 1 and 200),
  kind text not null constraint monitors_kind check (kind in ('http')),
  target text not null constraint monitors_target_length check (char_length(target) between 1 and 2048),
  interval_seconds integer not null constraint monitors_interval_seconds check (interval_seconds between 5 and 86400),
  timeout_seconds integer not null constraint monitors_timeout_seconds check (timeout_seconds between 1 and 60),
  retry_interval_seconds integer not null
    constraint monitors_retry_interval_seconds check (retry_interval_seconds between 1 and 86400),
  fail_threshold integer not null constraint monitors_fail_threshold check (fail_threshold between 1 and 20),
  recover_threshold integer not null constraint monitors_recover_threshold check (recover_threshold between 1 and 20),
  degraded_after_ms integer constraint monitors_degraded_after_ms check (degraded_after_ms between 1 and 60000),
  expected_status text[] not null constraint monitors_expected_status check (private.are_status_ranges(expected_status)),
  max_redirects integer not null constraint monitors_max_redirects check (max_redirects between 0 and 10),
  state text not null default 'new'
    constraint monitors_state check (state in ('new', 'up', 'degraded', 'pending', 'down', 'unknown')),
  state_since timestamptz not null default now(),
  paused boolean not null default false,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  version integer not null default 1,
  constraint monitors_timeout_within_interval check (timeout_seconds <= interval_seconds),
  constraint monitors_retry_within_interval check (retry_interval_seconds <= interval_seconds)
);
create index monitors_by_organisation on public.monitors (org_id, created_at desc, id desc);

alter table public.monitors enable row level security;
revoke all on public.monitors from anon, authenticated;
grant select, delete on public.monitors to authenticated;
-- What a person may write. State, times and version belong to the database.
grant insert (org_id, name, kind, target, interval_seconds, timeout_seconds, retry_interval_seconds, fail_threshold,
  recover_threshold, degraded_after_ms, expected_status, max_redirects, paused) on public.monitors to authenticated;
grant update (name, target, interval_seconds, timeout_seconds, retry_interval_seconds, fail_threshold,
  recover_threshold, degraded_after_ms, expected_status, max_redirects, paused) on public.monitors to authenticated;

create policy "members see their organisation's monitors" on public.monitors
  for select to authenticated using (org_id = any (array(select private.my_orgs())));
create policy "editors create monitors" on public.monitors
  for insert to authenticated with check (org_id = any (array(select private.my_orgs('editor'))));
create policy "editors change monitors" on public.monitors
  for update to authenticated using (org_id = any (array(select private.my_orgs('editor'))));
create policy "editors delete monitors" on public.monitors
  for delete to authenticated using (org_id = any (array(select private.my_orgs('editor'))));

-- When a monitor is due, who holds it, and the streak that the next verdict continues. `due_at` null: paused.
create table private.monitor_schedules (
  monitor_id uuid primary key references public.monitors (id) on delete cascade,
  due_at timestamptz,
  lease_token uuid,
  lease_until timestamptz,
  failures integer not null default 0,
  successes integer not null default 0,
  streak_since timestamptz,
  last_observed_at timestamptz
) with (fillfactor = 70);
create index monitor_schedules_due on private.monitor_schedules (due_at) where due_at is not null;
alter table private.monitor_schedules enable row level security;
revoke all on private.monitor_schedules from public, anon, authenticated;

-- The ledger: one immutable line for each stretch in which a monitor was in one state. Only the open line (ended_at
-- null) is ever touched, to end it. Lines of one monitor cannot overlap, whoever writes them.
create table public.intervals (
  id uuid primary key default gen_random_uuid(),
  org_id uuid not null references public.organisations (id) on delete cascade,
  monitor_id uuid not null references public.monitors (id) on delete cascade,
  state text not null constraint intervals_state check (state in ('up', 'degraded', 'down', 'unknown')),
  started_at timestamptz not null,
  ended_at timestamptz,
  cause text not null,
  constraint intervals_end_after_their_start check (ended_at > started_at),
  constraint intervals_do_not_overlap
    exclude using gist (monitor_id with =, tstzrange(started_at, ended_at) with &&)
);
create index intervals_by_monitor on public.intervals (monitor_id, started_at desc);
create index intervals_by_organisation on public.intervals (org_id);
create unique index intervals_one_open on public.intervals (monitor_id) where ended_at is null;
alter table public.intervals enable row level security;
revoke all on public.intervals from anon, authenticated;
grant select on public.intervals to authenticated;
create policy "members see their monitors' history" on public.intervals
  for select to authenticated using (org_id = any (array(select private.my_orgs())));

-- Writes one line into the ledger: from `at` on, the monitor was in `new_state`. Times never run backwards: an `at`
-- before the open line's start is moved there, and a line of no length is replaced rather than kept.
create function private.write_interval(of_monitor uuid, of_org uuid, new_state text, at timestamptz, why text) returns void
language plpgsql
set search_path = ''
as $$
declare
  open_line public.intervals;
begin
  select * into open_line from public.intervals i where i.monitor_id = of_monitor and i.ended_at is null for update;
  if open_line.id is not null then
    if at > open_line.started_at then
      update public.intervals set ended_at = at where id = open_line.id;
    else
      at := open_line.started_at;
      delete from public.intervals where id = open_line.id;
    end if;
  end if;
  insert into public.intervals (org_id, monitor_id, state, started_at, cause) values (of_org, of_monitor, new_state, at, why);
end
$$;
revoke execute on function private.write_interval(uuid, uuid, text, timestamptz, text) from public, anon, authenticated;

-- What a change by a person means for version, state and times. A transition by the worker leaves the version alone,
-- so that If-Match guards people against people and never against the weather.
create function private.prepare_monitor_change() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  if (to_jsonb(new) - 'state' - 'state_since') is distinct from (to_jsonb(old) - 'state' - 'state_since') then
    new.version := old.version + 1;
    new.updated_at := now();
  end if;
  if new.paused and not old.paused then
    new.state := 'unknown';
    new.state_since := now();
  elsif old.paused and not new.paused then
    new.state := 'new';
    new.state_since := now();
  end if;
  return new;
end
$$;
create trigger prepare_change before update on public.monitors
  for each row execute function private.prepare_monitor_change();

create function private.schedule_new_monitor() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  insert into private.monitor_schedules (monitor_id, due_at) values (new.id, case when not new.paused then now() end);
  return null;
end
$$;
create trigger schedule_first_check after insert on public.monitors
  for each row execute function private.schedule_new_monitor();

-- A change of what or how to check makes the monitor due at once and takes the lease away, so that an answer to the
-- old question decides nothing. A new target or a pause starts the count afresh; a pause writes `unknown` into the ledger.
create function private.reschedule_changed_monitor() returns trigger
language plpgsql security definer
set search_path = ''
as $$
declare
  asks_something_else constant boolean := (new.target, new.expected_status, new.max_redirects)
    is distinct from (old.target, old.expected_status, old.max_redirects);
begin
  if new.paused and not old.paused then
    update private.monitor_schedules
    set due_at = null, lease_token = null, lease_until = null,
        failures = 0, successes = 0, streak_since = null, last_observed_at = null
    where monitor_id = new.id;
    if exists (select from public.intervals where monitor_id = new.id and ended_at is null) then
      perform private.write_interval(new.id, new.org_id, 'unknown', now(), 'paused');
    end if;
  elsif not new.paused and new.version <> old.version then
    update private.monitor_schedules
    set due_at = now(), lease_token = null, lease_until = null,
        failures = case when asks_something_else then 0 else failures end,
        successes = case when asks_something_else then 0 else successes end,
        streak_since = case when asks_something_else then null else streak_since end
    where monitor_id = new.id;
  end if;
  return null;
end
$$;
create trigger reschedule after update of target, interval_seconds, timeout_seconds, retry_interval_seconds,
    fail_threshold, recover_threshold, degraded_after_ms, expected_status, max_redirects, paused on public.monitors
  for each row execute function private.reschedule_changed_monitor();

create trigger append_event after insert or update or delete on public.monitors
  for each row execute function private.append_event('monitor');

revoke execute on function private.prepare_monitor_change(), private.schedule_new_monitor(),
  private.reschedule_changed_monitor() from public, anon, authenticated;

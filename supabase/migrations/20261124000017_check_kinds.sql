-- What: monitors of six kinds, their options, assertions, parents and regions; one schedule for each region; record and
--       claim_due as they are needed for that.
-- Why:  what only one kind knows stands in `options`, so that a new kind is a file and no migration. expected_status and
--       max_redirects, which only http knows, move in there: an API process of before this migration cannot read monitors
--       any more, so the API is restarted with it.

-- ---------------------------------------------------------------- monitors

alter table public.monitors
  drop constraint monitors_kind,
  add constraint monitors_kind check (kind in ('http', 'tcp', 'tls', 'dns', 'icmp', 'heartbeat')),
  alter column target drop not null,
  alter column interval_seconds drop not null,
  alter column timeout_seconds drop not null,
  alter column retry_interval_seconds drop not null,
  -- Nobody goes and looks at a heartbeat: it comes, or it does not.
  add constraint monitors_heartbeats_are_not_looked_at check (
    case when kind = 'heartbeat' then num_nonnulls(target, interval_seconds, timeout_seconds, retry_interval_seconds) = 0
      else num_nulls(target, interval_seconds, timeout_seconds, retry_interval_seconds) = 0 end
  ),
  add column options jsonb not null default '{}'
    constraint monitors_options check (jsonb_typeof(options) = 'object' and octet_length(options::text) <= 300000),
  add column assertions text[] not null default '{}' constraint monitors_assertions check (
    cardinality(assertions) <= 20 and array_position(assertions, null) is null
    and octet_length(array_to_string(assertions, '')) <= 20000
  ),
  add column depends_on uuid[] not null default '{}' constraint monitors_depends_on check (
    cardinality(depends_on) <= 20 and array_position(depends_on, null) is null
  ),
  -- Empty: whichever worker comes first. Else each of these regions looks, and most of them decide.
  add column regions text[] not null default '{}' constraint monitors_regions check (
    cardinality(regions) <= 10 and array_position(regions, null) is null
    and array_to_string(regions, ',') ~ '^([a-z0-9][a-z0-9_-]{0,39}(,[a-z0-9][a-z0-9_-]{0,39})*)?$'
  ),
  add column slug text constraint monitors_slug check (slug ~ '^[a-z0-9_-]{1,100}$'),
  add column ping_id uuid constraint monitors_ping_id_is_one_monitors unique,
  add column flapping boolean not null default false,
  add constraint monitors_only_heartbeats_are_pinged check (
    kind = 'heartbeat' or (slug is null and ping_id is null)
  ),
  add constraint monitors_heartbeats_have_no_regions check (kind <> 'heartbeat' or cardinality(regions) = 0);
create index monitors_by_slug on public.monitors (org_id, slug) where slug is not null;
create index monitors_by_parent on public.monitors using gin (depends_on) where depends_on <> '{}';

drop trigger reschedule on public.monitors;
drop view public.named_monitors;
update public.monitors
set options = jsonb_build_object('expected_status', to_jsonb(expected_status), 'max_redirects', max_redirects);
alter table public.monitors drop column expected_status, drop column max_redirects;
drop function private.are_status_ranges(text[]);

create view public.named_monitors with (security_invoker = true) as
  select m.*, private.name_key(m.name) as name_key from public.monitors m;
revoke all on public.named_monitors from public, anon, authenticated;
grant select on public.named_monitors to authenticated, anon;
grant insert (options, assertions, depends_on, regions, slug) on public.monitors to authenticated, anon;
grant update (options, assertions, depends_on, regions, slug) on public.monitors to authenticated, anon;

-- What a check signs in with. Apart from monitors, so that no query of a user, no event and no view can reach it.
create table private.monitor_secrets (
  monitor_id uuid primary key
    -- At the end: a monitor's secret is taken out of it before there is a row to refer to.
    references public.monitors (id) on delete cascade deferrable initially deferred,
  auth jsonb not null
);
alter table private.monitor_secrets enable row level security;
revoke all on private.monitor_secrets from public, anon, authenticated;

-- Puts what `options.auth` must not show into private.monitor_secrets, and stamps what is left, so that a new password
-- is a change like any other. What comes without its secret is the old one, or is refused: PT422 secret_missing.
create function private.hide_secrets() returns trigger
language plpgsql security definer
set search_path = ''
as $$
declare
  secret_members constant text[] := array['password', 'token', 'value'];
  auth constant jsonb := new.options -> 'auth';
begin
  if new.kind = 'heartbeat' and new.ping_id is null then
    new.ping_id := gen_random_uuid();
  end if;
  if auth is null or jsonb_typeof(auth) = 'null' then
    delete from private.monitor_secrets where monitor_id = new.id;
  elsif jsonb_typeof(auth) = 'object' and auth ?| secret_members then
    insert into private.monitor_secrets (monitor_id, auth) values (new.id, auth - 'set_at')
    on conflict (monitor_id) do update set auth = excluded.auth;
    new.options := jsonb_set(new.options, '{auth}',
      auth - secret_members || jsonb_build_object('set_at', private.rfc3339(clock_timestamp())));
  elsif tg_op = 'INSERT' or auth is distinct from old.options -> 'auth' then
    raise exception 'secret_missing' using errcode = 'PT422',
      detail = 'Give the password, token or value with it: what is stored is never shown, so it cannot be sent back.',
      hint = '{"pointer": "/options/auth"}';
  end if;
  return new;
end
$$;
create trigger hide_secrets before insert or update of options on public.monitors
  for each row execute function private.hide_secrets();

-- Parents are monitors of the same organisation, and no monitor depends on itself, however far around. PT422
-- unknown_dependency or dependency_cycle, the place in the hint. Whoever writes parents locks the organisation, so that
-- no two writers close a cycle between them.
create function private.check_dependencies() returns trigger
language plpgsql security definer
set search_path = ''
as $$
declare
  parent uuid;
  place integer := 0;
begin
  if cardinality(new.depends_on) = 0 then
    return null;
  end if;
  perform from public.organisations o where o.id = new.org_id for no key update;
  foreach parent in array new.depends_on loop
    if not exists (select from public.monitors m where m.id = parent and m.org_id = new.org_id) then
      raise exception 'unknown_dependency' using errcode = 'PT422',
        detail = format('There is no monitor %s in this organisation.', parent),
        hint = jsonb_build_object('pointer', '/depends_on/' || place)::text;
    end if;
    if exists (
      with recursive ancestor (id) as (
        select parent
        union
        select unnest(m.depends_on) from ancestor a join public.monitors m on m.id = a.id
      )
      select from ancestor a where a.id = new.id
    ) then
      raise exception 'dependency_cycle' using errcode = 'PT422',
        detail = format('The monitor %s depends on this one itself.', parent),
        hint = jsonb_build_object('pointer', '/depends_on/' || place)::text;
    end if;
    place := place + 1;
  end loop;
  return null;
end
$$;
create trigger check_dependencies after insert or update of depends_on on public.monitors
  for each row execute function private.check_dependencies();

-- A parent that is deleted is nobody's parent any more.
create function private.forget_parent() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  update public.monitors set depends_on = array_remove(depends_on, old.id)
  where depends_on <> '{}' and depends_on @> array[old.id];
  return null;
end
$$;
create trigger forget_parent after delete on public.monitors
  for each row execute function private.forget_parent();
revoke execute on function private.hide_secrets(), private.check_dependencies(), private.forget_parent()
  from public, anon, authenticated;

-- As before, with what is new. A transition of the worker's (state, state_since, flapping) leaves the version alone.
create or replace function private.prepare_monitor_change() returns trigger
language plpgsql
set search_path = ''
as $$
declare
  the_workers constant text[] := array['state', 'state_since', 'flapping'];
begin
  if (to_jsonb(new) - the_workers) is distinct from (to_jsonb(old) - the_workers) then
    new.version := old.version + 1;
    new.updated_at := now();
  end if;
  if new.paused and not old.paused then
    new.state := 'unknown';
    new.state_since := now();
    new.flapping := false;
  elsif old.paused and not new.paused then
    new.state := 'new';
    new.state_since := now();
  end if;
  return new;
end
$$;

create or replace function public.create_monitor(draft jsonb) returns jsonb
language sql
set search_path = ''
as $$
  insert into public.monitors (org_id, name, kind, target, interval_seconds, timeout_seconds, retry_interval_seconds,
    fail_threshold, recover_threshold, degraded_after_ms, options, assertions, depends_on, regions, slug, paused)
  select d.org_id, d.name, d.kind, d.target, d.interval_seconds, d.timeout_seconds, d.retry_interval_seconds,
    coalesce(d.fail_threshold, 1), coalesce(d.recover_threshold, 1), d.degraded_after_ms, coalesce(d.options, '{}'),
    coalesce(d.assertions, '{}'), coalesce(d.depends_on, '{}'), coalesce(d.regions, '{}'), d.slug, d.paused
  from jsonb_to_record(draft) as d (org_id uuid, name text, kind text, target text, interval_seconds integer,
    timeout_seconds integer, retry_interval_seconds integer, fail_threshold integer, recover_threshold integer,
    degraded_after_ms integer, options jsonb, assertions text[], depends_on uuid[], regions text[], slug text,
    paused boolean)
  returning to_jsonb(monitors)
$$;

-- ---------------------------------------------------------------- schedules

-- One for each region of a monitor; '' where any worker may. `state` is what that region alone thinks.
alter table private.monitor_schedules
  add column region text not null default '',
  add column state text not null default 'new'
    constraint monitor_schedules_state check (state in ('new', 'up', 'degraded', 'pending', 'down', 'unknown')),
  drop constraint monitor_schedules_pkey,
  add constraint monitor_schedules_pkey primary key (monitor_id, region);
update private.monitor_schedules s set state = m.state from public.monitors m where m.id = s.monitor_id;

-- The database's time when a worker last asked, so that a clock that was set back is noticed.
create table private.told_time (
  only_row boolean primary key default true constraint told_time_has_one_row check (only_row),
  told_at timestamptz not null
);
alter table private.told_time enable row level security;
revoke all on private.told_time from public, anon, authenticated;
insert into private.told_time (told_at) values (now());

-- Gives each region of a monitor its schedule, and takes away those of regions that are its no longer.
create function private.schedule_regions(monitor public.monitors) returns void
language sql
set search_path = ''
as $$
  delete from private.monitor_schedules s
  where s.monitor_id = monitor.id
    and s.region <> all (case when cardinality(monitor.regions) = 0 then array[''] else monitor.regions end);
  insert into private.monitor_schedules (monitor_id, region, due_at)
  select monitor.id, wanted.region, case when not monitor.paused and monitor.kind <> 'heartbeat' then now() end
  from unnest(case when cardinality(monitor.regions) = 0 then array[''] else monitor.regions end) as wanted (region)
  on conflict do nothing
$$;
create or replace function private.schedule_new_monitor() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  perform private.schedule_regions(new);
  return null;
end
$$;

create or replace function private.reschedule_changed_monitor() returns trigger
language plpgsql security definer
set search_path = ''
as $$
declare
  asks_something_else constant boolean := (new.target, new.options, new.assertions)
    is distinct from (old.target, old.options, old.assertions);
begin
  if new.regions <> old.regions then
    perform private.schedule_regions(new);
  end if;
  if new.paused and not old.paused then
    update private.monitor_schedules
    set due_at = null, lease_token = null, lease_until = null, state = 'unknown',
        failures = 0, successes = 0, streak_since = null, last_observed_at = null, last_interval_seconds = null
    where monitor_id = new.id;
    if exists (select from public.intervals where monitor_id = new.id and ended_at is null) then
      perform private.write_interval(new.id, new.org_id, 'unknown', now(), 'paused');
    end if;
  elsif not new.paused and new.version <> old.version then
    update private.monitor_schedules
    set due_at = now(), lease_token = null, lease_until = null,
        state = case when old.paused then 'new' else state end,
        failures = case when asks_something_else then 0 else failures end,
        successes = case when asks_something_else then 0 else successes end,
        streak_since = case when asks_something_else then null else streak_since end
    where monitor_id = new.id;
  end if;
  return null;
end
$$;
create trigger reschedule after update of target, interval_seconds, timeout_seconds, retry_interval_seconds,
    fail_threshold, recover_threshold, degraded_after_ms, options, assertions, regions, paused on public.monitors
  for each row execute function private.reschedule_changed_monitor();

-- When a monitor was last looked at, by whichever region.
create or replace function private.last_observation(of_monitor uuid)
returns table (last_observed_at timestamptz, last_interval_seconds integer)
language sql stable security definer
set search_path = ''
as $$
  select s.last_observed_at, s.last_interval_seconds
  from private.monitor_schedules s join public.monitors m on m.id = s.monitor_id
  where s.monitor_id = of_monitor and m.org_id in (select private.my_orgs())
  order by s.last_observed_at desc nulls last
  limit 1
$$;
create or replace function private.last_observations(of_org uuid)
returns table (monitor_id uuid, last_observed_at timestamptz, last_interval_seconds integer)
language sql stable security definer
set search_path = ''
as $$
  select distinct on (s.monitor_id) s.monitor_id, s.last_observed_at, s.last_interval_seconds
  from private.monitor_schedules s join public.monitors m on m.id = s.monitor_id
  where m.org_id = of_org and of_org = any (array(select private.my_orgs()))
  order by s.monitor_id, s.last_observed_at desc nulls last
$$;
revoke execute on function private.schedule_regions(public.monitors) from public, anon, authenticated;

-- ---------------------------------------------------------------- results

alter table public.check_results
  drop constraint check_results_outcome,
  add constraint check_results_outcome check (outcome in ('up', 'down', 'unknown')),
  add column findings jsonb;
comment on column public.check_results.findings is
  'what became of each assertion: [{assertion, observed, holds}]; null where there are none';

drop function public.list_checks(uuid, boolean, timestamptz, uuid, text, timestamptz, timestamptz, integer);
create function public.list_checks(
  monitor_id uuid, ascending boolean, after_at timestamptz, after_id uuid, with_outcome text, from_at timestamptz,
  to_at timestamptz, max_rows integer
) returns jsonb
language sql stable
set search_path = ''
as $$
  select coalesce((
    select jsonb_agg(to_jsonb(page) order by
      case when ascending then page.started_at end, case when ascending then page.id end,
      page.started_at desc, page.id desc)
    from (
      (
        select r.id, r.started_at, r.region, r.outcome, r.counted, r.status_code, r.error_kind, r.error_detail, r.dns_ms,
          r.connect_ms, r.tls_ms, r.first_byte_ms, r.total_ms, r.remote_ip, r.tls_expires_at, r.findings as assertions
        from public.check_results r
        where not ascending and r.monitor_id = m.id
          and (after_at is null or (r.started_at <= after_at and (r.started_at < after_at or r.id < after_id)))
          and (with_outcome is null or r.outcome = with_outcome)
          and r.started_at >= greatest(from_at, kept.since)
          and (to_at is null or r.started_at < to_at)
        order by r.started_at desc, r.id desc
        limit least(max_rows, 201)
      )
      union all
      (
        select r.id, r.started_at, r.region, r.outcome, r.counted, r.status_code, r.error_kind, r.error_detail, r.dns_ms,
          r.connect_ms, r.tls_ms, r.first_byte_ms, r.total_ms, r.remote_ip, r.tls_expires_at, r.findings as assertions
        from public.check_results r
        where ascending and r.monitor_id = m.id
          and (after_at is null or (r.started_at >= after_at and (r.started_at > after_at or r.id > after_id)))
          and (with_outcome is null or r.outcome = with_outcome)
          and r.started_at >= greatest(from_at, kept.since)
          and (to_at is null or r.started_at < to_at)
        order by r.started_at, r.id
        limit least(max_rows, 201)
      )
    ) page
  ), '[]'::jsonb)
  from public.monitors m
  cross join lateral (
    select now() - make_interval(days => p.retention_days) as since
    from public.organisations o join public.plans p on p.name = o.plan
    where o.id = m.org_id
  ) kept
  where m.id = list_checks.monitor_id
$$;
revoke execute on function public.list_checks(
  uuid, boolean, timestamptz, uuid, text, timestamptz, timestamptz, integer
) from public, anon;
grant execute on function public.list_checks(
  uuid, boolean, timestamptz, uuid, text, timestamptz, timestamptz, integer
) to authenticated, anon;

-- ---------------------------------------------------------------- what stays in order when a clock is set back

-- As before, and: where a line of no length gives way to the state of the line before it, that line goes on.
create or replace function private.write_interval(
  of_monitor uuid, of_org uuid, new_state text, at timestamptz, why text
) returns void
language plpgsql
set search_path = ''
as $$
declare
  open_line public.intervals;
begin
  select * into open_line from public.intervals i where i.monitor_id = of_monitor and i.ended_at is null for update;
  if at > open_line.started_at then
    update public.intervals set ended_at = at where id = open_line.id;
  elsif open_line.id is not null then
    at := open_line.started_at;
    delete from public.intervals where id = open_line.id;
    update public.intervals i set ended_at = null
    where i.monitor_id = of_monitor and i.ended_at = at and i.state = new_state;
    if found then
      return;
    end if;
  end if;
  insert into public.intervals (org_id, monitor_id, state, started_at, cause) values (of_org, of_monitor, new_state, at, why);
end
$$;

-- One channel hears of one incident in the order of `created_at`, so no message is older than the one before it.
create function private.keep_deliveries_in_order() returns trigger
language plpgsql security definer
set search_path = ''
as $$
declare
  last_at constant timestamptz := (
    select max(d.created_at) from public.deliveries d
    where d.incident_id = new.incident_id and d.channel_id = new.channel_id
  );
begin
  if new.created_at <= last_at then
    new.created_at := last_at + interval '1 microsecond';
  end if;
  return new;
end
$$;
create trigger keep_in_order before insert on public.deliveries
  for each row when (new.incident_id is not null) execute function private.keep_deliveries_in_order();
revoke execute on function private.keep_deliveries_in_order() from public, anon, authenticated;

-- ---------------------------------------------------------------- the worker's calls

-- What the other regions think of a monitor: [{region, state, streak_since, last_observed_at, last_interval_seconds}].
create function private.peers_of(of_monitor uuid, of_region text) returns jsonb
language sql stable
set search_path = ''
as $$
  select coalesce(jsonb_agg(jsonb_build_object(
      'region', s.region,
      'state', s.state,
      'streak_since', private.rfc3339(s.streak_since),
      'last_observed_at', private.rfc3339(s.last_observed_at),
      'last_interval_seconds', s.last_interval_seconds
    ) order by s.region), '[]'::jsonb)
  from private.monitor_schedules s
  where s.monitor_id = of_monitor and s.region <> of_region
$$;

-- What a verdict is judged from beside the check itself, where several regions decide; null where one does, since its
-- lease alone says that nothing has changed. `record` refuses a verdict that was judged from anything else than what is.
create function private.judged_from(monitor public.monitors, of_region text) returns jsonb
language sql stable
set search_path = ''
as $$
  select case when of_region <> '' then jsonb_build_object(
    'state', monitor.state,
    'ledger_state', (
      select i.state from public.intervals i where i.monitor_id = monitor.id and i.ended_at is null
    ),
    'peers', private.peers_of(monitor.id, of_region)
  ) end
$$;

-- A clock that was set back leaves times of an hour that is yet to come. Due times and leases would leave everything
-- unwatched until it has come; a region that has died meanwhile would be taken for connected, and a time in which nobody
-- looks for watched. So where that has happened all is due at once, no lease holds, and nothing was seen later than now.
-- Returns nothing; costs one row read a claim.
create function private.notice_clock() returns void
language plpgsql
set search_path = ''
as $$
declare
  told timestamptz;
begin
  select t.told_at into told from private.told_time t;
  if now() < told - interval '20 seconds' then
    update private.told_time set told_at = now() where told_at = told;
    if found then
      -- In the order in which `record` locks them.
      perform from private.monitor_schedules s order by s.monitor_id, s.region for update;
      update private.monitor_schedules s
      set due_at = case when s.due_at > now() then now() else s.due_at end,
          lease_token = null,
          lease_until = null,
          last_observed_at = case when s.last_observed_at > now() then now() else s.last_observed_at end,
          streak_since = case when s.streak_since > now() then now() else s.streak_since end;
      update public.deliveries set next_attempt_at = now() where state = 'pending' and next_attempt_at > now();
      update public.deliveries set lease_token = null, lease_until = null where lease_until > now() + interval '10 minutes';
    end if;
  elsif now() > told + interval '10 seconds' then
    update private.told_time set told_at = now()
    where only_row = (select t.only_row from private.told_time t for update skip locked);
  end if;
end
$$;

-- Leases up to `max_checks` checks that are due in a region, each for its own timeout and `lease_seconds` more. Answers
-- {now, checks: [...]}, most overdue first.
create or replace function public.claim_due(region text, max_checks integer, lease_seconds integer) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  checks jsonb;
begin
  perform private.notice_clock();
  with due as (
    select s.monitor_id, s.region, m.timeout_seconds
    from private.monitor_schedules s join public.monitors m on m.id = s.monitor_id
    where s.due_at <= now() and (s.lease_until is null or s.lease_until < now())
      and s.region in ('', claim_due.region) and m.kind <> 'heartbeat'
    order by s.due_at
    limit max_checks
    for update of s skip locked
  ), leased as (
    update private.monitor_schedules s
    set lease_token = gen_random_uuid(), lease_until = now() + make_interval(secs => due.timeout_seconds + lease_seconds)
    from due
    where s.monitor_id = due.monitor_id and s.region = due.region
    returning s.*
  )
  select jsonb_agg(jsonb_build_object(
      'monitor_id', m.id,
      'lease_token', s.lease_token,
      'due_at', private.rfc3339(s.due_at),
      'kind', m.kind,
      'target', m.target,
      'options', case when k.auth is null then m.options else jsonb_set(m.options, '{auth}', k.auth) end,
      'assertions', m.assertions,
      'interval_seconds', m.interval_seconds,
      'timeout_seconds', m.timeout_seconds,
      'retry_interval_seconds', m.retry_interval_seconds,
      'fail_threshold', m.fail_threshold,
      'recover_threshold', m.recover_threshold,
      'degraded_after_ms', m.degraded_after_ms,
      'state', m.state,
      'flapping', m.flapping,
      'ledger_state', i.state,
      'recent_downs', coalesce((
        -- Not the ledger's lines: it has a new one where a monitor is still down after a hole.
        select jsonb_agg(private.rfc3339(n.started_at) order by n.started_at)
        from public.incidents n
        where n.monitor_id = m.id and n.opened_at > now() - interval '1 hour'
      ), '[]'::jsonb),
      'region_state', s.state,
      'failures', s.failures,
      'successes', s.successes,
      'streak_since', private.rfc3339(s.streak_since),
      'last_observed_at', private.rfc3339(s.last_observed_at),
      'last_interval_seconds', s.last_interval_seconds,
      'judged_from', private.judged_from(m, s.region)
    ) order by s.due_at)
  into checks
  from leased s
  join public.monitors m on m.id = s.monitor_id
  left join public.intervals i on i.monitor_id = s.monitor_id and i.ended_at is null
  left join private.monitor_secrets k on k.monitor_id = s.monitor_id;
  return jsonb_build_object('now', private.rfc3339(clock_timestamp()), 'checks', coalesce(checks, '[]'::jsonb));
end
$$;

-- Writes what a verdict says of a monitor, which the caller has locked: the lines of the ledger [{state, at, cause}], the
-- state and since when, whether it flaps, an incident {started_at, cause, summary, evidence} that opens, or (recovered_at)
-- the open one that ends. Null arguments change nothing.
create function private.apply_verdict(
  of_monitor uuid, new_state text, state_since timestamptz, transitions jsonb, incident jsonb, recovered_at timestamptz,
  flapping boolean default null
) returns void
language plpgsql
set search_path = ''
as $$
declare
  of_org constant uuid := (select m.org_id from public.monitors m where m.id = of_monitor);
  line jsonb;
begin
  for line in select * from jsonb_array_elements(transitions) loop
    perform private.write_interval(of_monitor, of_org, line ->> 'state', (line ->> 'at')::timestamptz, line ->> 'cause');
  end loop;
  update public.monitors m
  set state = new_state,
      state_since = case when m.state = new_state then m.state_since else apply_verdict.state_since end,
      flapping = coalesce(apply_verdict.flapping, m.flapping)
  where m.id = of_monitor and (m.state, m.flapping) is distinct from (new_state, coalesce(apply_verdict.flapping, m.flapping));
  if incident is not null then
    insert into public.incidents (org_id, monitor_id, cause, summary, evidence, started_at)
    values (of_org, of_monitor, incident ->> 'cause', incident ->> 'summary', incident -> 'evidence',
      (incident ->> 'started_at')::timestamptz)
    on conflict (monitor_id) where resolved_at is null do nothing;
  end if;
  if recovered_at is not null then
    update public.incidents
    set state = 'resolved', resolution = 'recovered', resolved_at = greatest(recovered_at, started_at)
    where monitor_id = of_monitor and resolved_at is null;
  end if;
end
$$;

-- Writes a batch of results with what was judged of them, in one transaction. Each item:
--   {result_id, monitor_id, lease_token, region, started_at, outcome, status_code, error_kind, error_detail, dns_ms,
--    connect_ms, tls_ms, first_byte_ms, total_ms, remote_ip, tls_expires_at, findings,
--    region_state, failures, successes, streak_since, last_interval_seconds, next_due_at,
--    state, state_since, flapping, transitions: [{state, at, cause}], incident: {...} | null, recovered_at: time | null,
--    judged_from: what claim_due said it is judged from}
-- 1. Make the day that results fall on, where it is missing, before anything is locked.
-- 2. Lock the monitors that change, then the schedules: the order in which a person's change takes them, so that
--    neither waits for the other for ever. 3. Keep every result, also one that decides nothing.
-- 4. Apply the verdicts whose lease still holds. 5. Give the leases back with the next due time.
-- A verdict that was judged from what is no longer so (another region has said something meanwhile) is neither applied nor
-- is its lease given back: the answer has it in `stale`, with what it is to be judged from now.
-- Written twice (an answer that was lost), it changes nothing the second time. Answers
-- {now, counted, stale: [{lease_token, judged_from}]}.
create or replace function public.record(batch jsonb) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  item record;
  counted integer;
  stale jsonb;
begin
  perform private.ensure_check_results_day(day)
  from (
    select distinct ((i ->> 'started_at')::timestamptz at time zone 'UTC')::date as day from jsonb_array_elements(batch) i
  ) days;

  perform from public.monitors m
  where m.id in (select (i ->> 'monitor_id')::uuid from jsonb_array_elements(batch) i)
  order by m.id
  for key share;
  perform from public.monitors m
  join jsonb_array_elements(batch) i on m.id = (i ->> 'monitor_id')::uuid
  where m.state <> i ->> 'state' or i -> 'transitions' <> '[]'::jsonb or m.flapping::text <> i ->> 'flapping'
    or i -> 'judged_from' <> 'null'::jsonb
  order by m.id
  for no key update of m;
  perform from private.monitor_schedules s
  where s.monitor_id in (select (i ->> 'monitor_id')::uuid from jsonb_array_elements(batch) i)
  order by s.monitor_id, s.region
  for update;

  insert into public.check_results (id, org_id, monitor_id, started_at, region, outcome, counted, status_code, error_kind,
    error_detail, dns_ms, connect_ms, tls_ms, first_byte_ms, total_ms, remote_ip, tls_expires_at, findings)
  select i.result_id, m.org_id, i.monitor_id, i.started_at, i.region, i.outcome, s.monitor_id is not null,
    i.status_code, i.error_kind, i.error_detail, i.dns_ms, i.connect_ms, i.tls_ms, i.first_byte_ms, i.total_ms,
    i.remote_ip, i.tls_expires_at, nullif(i.findings, 'null'::jsonb)
  from jsonb_to_recordset(batch) as i (result_id uuid, monitor_id uuid, lease_token uuid, started_at timestamptz, region text,
    outcome text, status_code integer, error_kind text, error_detail text, dns_ms double precision,
    connect_ms double precision, tls_ms double precision, first_byte_ms double precision, total_ms double precision,
    remote_ip text, tls_expires_at timestamptz, findings jsonb)
  join public.monitors m on m.id = i.monitor_id
  left join private.monitor_schedules s on s.monitor_id = i.monitor_id and s.lease_token = i.lease_token
  on conflict do nothing;

  select coalesce(jsonb_agg(jsonb_build_object('lease_token', s.lease_token, 'judged_from', is_now.judged_from)), '[]'::jsonb)
  into stale
  from jsonb_to_recordset(batch) as i (monitor_id uuid, lease_token uuid, judged_from jsonb)
  join private.monitor_schedules s on s.monitor_id = i.monitor_id and s.lease_token = i.lease_token
  join public.monitors m on m.id = i.monitor_id
  cross join lateral (select private.judged_from(m, s.region) as judged_from) is_now
  where s.region <> '' and is_now.judged_from is distinct from i.judged_from;

  for item in
    select i.*
    from jsonb_to_recordset(batch) as i (monitor_id uuid, lease_token uuid, state text, state_since timestamptz,
      transitions jsonb, incident jsonb, recovered_at timestamptz, flapping boolean)
    join private.monitor_schedules s on s.monitor_id = i.monitor_id and s.lease_token = i.lease_token
    join public.monitors m on m.id = i.monitor_id
    where (i.state <> m.state or i.transitions <> '[]'::jsonb or i.flapping <> m.flapping)
      and not stale @> jsonb_build_array(jsonb_build_object('lease_token', i.lease_token))
    order by i.monitor_id
  loop
    perform private.apply_verdict(item.monitor_id, item.state, item.state_since, item.transitions,
      nullif(item.incident, 'null'::jsonb), item.recovered_at, item.flapping);
  end loop;

  update private.monitor_schedules s
  set due_at = i.next_due_at, lease_token = null, lease_until = null, state = coalesce(i.region_state, i.state),
      failures = i.failures, successes = i.successes, streak_since = i.streak_since, last_observed_at = i.started_at,
      last_interval_seconds = i.last_interval_seconds
  from jsonb_to_recordset(batch) as i (monitor_id uuid, lease_token uuid, next_due_at timestamptz, state text,
    region_state text, failures integer, successes integer, streak_since timestamptz, started_at timestamptz,
    last_interval_seconds integer)
  where s.monitor_id = i.monitor_id and s.lease_token = i.lease_token
    and not stale @> jsonb_build_array(jsonb_build_object('lease_token', i.lease_token));
  get diagnostics counted = row_count;
  return jsonb_build_object('now', private.rfc3339(clock_timestamp()), 'counted', counted, 'stale', stale);
end
$$;
revoke execute on function private.peers_of(uuid, text), private.judged_from(public.monitors, text), private.notice_clock(),
  private.apply_verdict(uuid, text, timestamptz, jsonb, jsonb, timestamptz, boolean) from public, anon, authenticated;

-- What: the interval that was asked for at a monitor's last check, kept beside the time of that check.
-- Why:  a hole in what was watched is measured by the interval of then. Measured by that of now, a shortened interval
--       invented a hole in the past, and a lengthened one hid it. The functions are as before but for that.

alter table private.monitor_schedules add column last_interval_seconds integer;
update private.monitor_schedules s set last_interval_seconds = m.interval_seconds
from public.monitors m where m.id = s.monitor_id and s.last_observed_at is not null;

create or replace function private.reschedule_changed_monitor() returns trigger
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
        failures = 0, successes = 0, streak_since = null, last_observed_at = null,
        last_interval_seconds = null
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

-- When a monitor of the caller's was last looked at, and at which interval; nothing where it is not the caller's to see.
create function private.last_observation(of_monitor uuid)
returns table (last_observed_at timestamptz, last_interval_seconds integer)
language sql stable security definer
set search_path = ''
as $$
  select s.last_observed_at, s.last_interval_seconds
  from private.monitor_schedules s join public.monitors m on m.id = s.monitor_id
  where s.monitor_id = of_monitor and m.org_id in (select private.my_orgs())
$$;
revoke execute on function private.last_observation(uuid) from public, anon;
grant execute on function private.last_observation(uuid) to authenticated;

create or replace function public.monitor_history(monitor_id uuid, from_at timestamptz, to_at timestamptz) returns jsonb
language sql stable
set search_path = ''
as $$
  select jsonb_build_object(
    'now', private.rfc3339(now()),
    'first_started_at', (select private.rfc3339(min(i.started_at)) from public.intervals i where i.monitor_id = m.id),
    'last_observed_at', private.rfc3339(last.last_observed_at),
    'last_interval_seconds', last.last_interval_seconds,
    'open', (
      select jsonb_build_object('state', i.state, 'cause', i.cause, 'started_at', private.rfc3339(i.started_at))
      from public.intervals i where i.monitor_id = m.id and i.ended_at is null
    ),
    'ended_ms', coalesce((
      select jsonb_object_agg(t.state, t.ms)
      from (
        select case when i.cause = 'paused' then 'paused' else i.state end as state,
          (sum(extract(epoch from least(i.ended_at, to_at) - greatest(i.started_at, from_at))) * 1000)::bigint as ms
        from public.intervals i
        where i.monitor_id = m.id and i.ended_at > from_at and i.started_at < to_at
        group by 1
      ) t
    ), '{}'::jsonb)
  )
  from public.monitors m
  left join lateral private.last_observation(m.id) last on true
  where m.id = monitor_history.monitor_id
$$;
drop function private.last_observed_at(uuid);

create or replace function public.claim_due(region text, max_checks integer, lease_seconds integer) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  checks jsonb;
begin
  with due as (
    select s.monitor_id, m.timeout_seconds
    from private.monitor_schedules s join public.monitors m on m.id = s.monitor_id
    where s.due_at <= now() and (s.lease_until is null or s.lease_until < now())
    order by s.due_at
    limit max_checks
    for update of s skip locked
  ), leased as (
    update private.monitor_schedules s
    set lease_token = gen_random_uuid(), lease_until = now() + make_interval(secs => due.timeout_seconds + lease_seconds)
    from due
    where s.monitor_id = due.monitor_id
    returning s.*
  )
  select jsonb_agg(jsonb_build_object(
      'monitor_id', m.id,
      'lease_token', s.lease_token,
      'due_at', private.rfc3339(s.due_at),
      'kind', m.kind,
      'target', m.target,
      'interval_seconds', m.interval_seconds,
      'timeout_seconds', m.timeout_seconds,
      'retry_interval_seconds', m.retry_interval_seconds,
      'fail_threshold', m.fail_threshold,
      'recover_threshold', m.recover_threshold,
      'degraded_after_ms', m.degraded_after_ms,
      'expected_status', m.expected_status,
      'max_redirects', m.max_redirects,
      'state', m.state,
      'ledger_state', i.state,
      'failures', s.failures,
      'successes', s.successes,
      'streak_since', private.rfc3339(s.streak_since),
      'last_observed_at', private.rfc3339(s.last_observed_at),
      'last_interval_seconds', s.last_interval_seconds
    ) order by s.due_at)
  into checks
  from leased s
  join public.monitors m on m.id = s.monitor_id
  left join public.intervals i on i.monitor_id = s.monitor_id and i.ended_at is null;
  return jsonb_build_object('now', private.rfc3339(clock_timestamp()), 'checks', coalesce(checks, '[]'::jsonb));
end
$$;

-- Writes a batch of results with what was judged of them, in one transaction. Each item:
--   {result_id, monitor_id, lease_token, region, started_at, outcome, status_code, error_kind, error_detail, dns_ms,
--    connect_ms, tls_ms, first_byte_ms, total_ms, remote_ip, tls_expires_at, state, state_since, failures, successes,
--    streak_since, last_interval_seconds, next_due_at, transitions: [{state, at, cause}],
--    incident: {started_at, cause, summary, evidence} | null, recovered_at: time | null}
-- 1. Make the day that results fall on, where it is missing, before anything is locked.
-- 2. Lock the monitors that change, then the schedules: the order in which a person's change takes them, so that
--    neither waits for the other for ever. 3. Keep every result, also one that decides nothing.
-- 4. Apply the verdicts whose lease still holds. 5. Give the leases back with the next due time.
-- Written twice (an answer that was lost), it changes nothing the second time. Answers {now, counted}.
create or replace function public.record(batch jsonb) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  item record;
  line jsonb;
  counted integer;
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
  where m.state <> i ->> 'state' or i -> 'transitions' <> '[]'::jsonb
  order by m.id
  for no key update of m;
  perform from private.monitor_schedules s
  where s.monitor_id in (select (i ->> 'monitor_id')::uuid from jsonb_array_elements(batch) i)
  order by s.monitor_id
  for update;

  insert into public.check_results (id, org_id, monitor_id, started_at, region, outcome, counted, status_code, error_kind,
    error_detail, dns_ms, connect_ms, tls_ms, first_byte_ms, total_ms, remote_ip, tls_expires_at)
  select i.result_id, m.org_id, i.monitor_id, i.started_at, i.region, i.outcome, s.lease_token is not distinct from i.lease_token,
    i.status_code, i.error_kind, i.error_detail, i.dns_ms, i.connect_ms, i.tls_ms, i.first_byte_ms, i.total_ms,
    i.remote_ip, i.tls_expires_at
  from jsonb_to_recordset(batch) as i (result_id uuid, monitor_id uuid, lease_token uuid, started_at timestamptz, region text,
    outcome text, status_code integer, error_kind text, error_detail text, dns_ms double precision,
    connect_ms double precision, tls_ms double precision, first_byte_ms double precision, total_ms double precision,
    remote_ip text, tls_expires_at timestamptz)
  join private.monitor_schedules s on s.monitor_id = i.monitor_id
  join public.monitors m on m.id = i.monitor_id
  on conflict do nothing;

  for item in
    select i.*, m.org_id, m.state as old_state
    from jsonb_to_recordset(batch) as i (monitor_id uuid, lease_token uuid, state text, state_since timestamptz,
      transitions jsonb, incident jsonb, recovered_at timestamptz)
    join private.monitor_schedules s on s.monitor_id = i.monitor_id and s.lease_token = i.lease_token
    join public.monitors m on m.id = i.monitor_id
    where i.state <> m.state or i.transitions <> '[]'::jsonb
    order by i.monitor_id
  loop
    for line in select * from jsonb_array_elements(item.transitions) loop
      perform private.write_interval(
        item.monitor_id, item.org_id, line ->> 'state', (line ->> 'at')::timestamptz, line ->> 'cause');
    end loop;
    if item.state <> item.old_state then
      update public.monitors set state = item.state, state_since = item.state_since where id = item.monitor_id;
    end if;
    if item.incident is not null then
      insert into public.incidents (org_id, monitor_id, cause, summary, evidence, started_at)
      values (item.org_id, item.monitor_id, item.incident ->> 'cause', item.incident ->> 'summary',
        item.incident -> 'evidence', (item.incident ->> 'started_at')::timestamptz)
      on conflict (monitor_id) where resolved_at is null do nothing;
    end if;
    if item.recovered_at is not null then
      update public.incidents
      set state = 'resolved', resolution = 'recovered', resolved_at = greatest(item.recovered_at, started_at)
      where monitor_id = item.monitor_id and resolved_at is null;
    end if;
  end loop;

  update private.monitor_schedules s
  set due_at = i.next_due_at, lease_token = null, lease_until = null, failures = i.failures, successes = i.successes,
      streak_since = i.streak_since, last_observed_at = i.started_at, last_interval_seconds = i.last_interval_seconds
  from jsonb_to_recordset(batch) as i (monitor_id uuid, lease_token uuid, next_due_at timestamptz, failures integer,
    successes integer, streak_since timestamptz, started_at timestamptz, last_interval_seconds integer)
  where s.monitor_id = i.monitor_id and s.lease_token = i.lease_token;
  get diagnostics counted = row_count;
  return jsonb_build_object('now', private.rfc3339(clock_timestamp()), 'counted', counted);
end
$$;

-- What: the four calls of the worker: claim_due and record for checks, claim_deliveries and settle_deliveries for the outbox.
-- Why:  any number of workers, no coordinator but Postgres. A claim is a lease with a token; whatever is written back is
--       judged by that token, so that a worker that was away too long changes nothing. Granted to service_role alone.
--       The database's clock is the only one: each claim tells its `now`, and workers count on from there.

-- Leases up to `max_checks` monitors that are due, each for its own timeout and `lease_seconds` more. Answers
-- {now, checks: [...]}, most overdue first.
create function public.claim_due(region text, max_checks integer, lease_seconds integer) returns jsonb
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
      'last_observed_at', private.rfc3339(s.last_observed_at)
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
--    streak_since, next_due_at, transitions: [{state, at, cause}], incident: {started_at, cause, summary, evidence} | null,
--    recovered_at: time | null}
-- 1. Make the day that results fall on, where it is missing, before anything is locked.
-- 2. Lock the monitors that change, then the schedules: the order in which a person's change takes them, so that
--    neither waits for the other for ever. 3. Keep every result, also one that decides nothing.
-- 4. Apply the verdicts whose lease still holds. 5. Give the leases back with the next due time.
-- Written twice (an answer that was lost), it changes nothing the second time. Answers {now, counted}.
create function public.record(batch jsonb) returns jsonb
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
      streak_since = i.streak_since, last_observed_at = i.started_at
  from jsonb_to_recordset(batch) as i (monitor_id uuid, lease_token uuid, next_due_at timestamptz, failures integer,
    successes integer, streak_since timestamptz, started_at timestamptz)
  where s.monitor_id = i.monitor_id and s.lease_token = i.lease_token;
  get diagnostics counted = row_count;
  return jsonb_build_object('now', private.rfc3339(clock_timestamp()), 'counted', counted);
end
$$;

-- Leases up to `max_deliveries` that are due. One channel hears of one incident in order: a later message waits until
-- the earlier one was delivered or is dead. Answers {now, deliveries: [...]}.
create function public.claim_deliveries(max_deliveries integer, lease_seconds integer) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  claimed jsonb;
begin
  with due as (
    select d.id
    from public.deliveries d
    where d.state = 'pending' and d.next_attempt_at <= now() and (d.lease_until is null or d.lease_until < now())
      and not exists (
        select from public.deliveries earlier
        where earlier.incident_id = d.incident_id and earlier.channel_id = d.channel_id
          and earlier.state = 'pending' and earlier.created_at < d.created_at
      )
    order by d.next_attempt_at
    limit max_deliveries
    for update skip locked
  ), leased as (
    update public.deliveries d
    set lease_token = gen_random_uuid(), lease_until = now() + make_interval(secs => lease_seconds), attempts = d.attempts + 1
    from due
    where d.id = due.id
    returning d.*
  )
  select jsonb_agg(jsonb_build_object(
      'id', d.id, 'lease_token', d.lease_token, 'kind', c.kind, 'url', c.url, 'secret', k.secret,
      'payload', d.payload, 'attempts', d.attempts
    ) order by d.next_attempt_at)
  into claimed
  from leased d
  join public.channels c on c.id = d.channel_id
  join private.channel_secrets k on k.channel_id = d.channel_id;
  return jsonb_build_object('now', private.rfc3339(clock_timestamp()), 'deliveries', coalesce(claimed, '[]'::jsonb));
end
$$;

-- Says how attempts ended. Each item: {id, lease_token, outcome: delivered | failed | dead, status_code, error,
-- retry_in_seconds}. A delivery that was made is delivered, whoever holds the lease by now; any other outcome counts
-- only while the lease holds. Answers {settled}.
create function public.settle_deliveries(batch jsonb) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  settled integer;
begin
  update public.deliveries d
  set state = case i.outcome when 'failed' then 'pending' else i.outcome end,
      next_attempt_at = case i.outcome when 'failed' then now() + make_interval(secs => i.retry_in_seconds) end,
      delivered_at = case i.outcome when 'delivered' then now() end,
      last_status_code = i.status_code,
      last_error = i.error,
      lease_token = null,
      lease_until = null
  from jsonb_to_recordset(batch) as i (id uuid, lease_token uuid, outcome text, status_code integer, error text,
    retry_in_seconds double precision)
  where d.id = i.id
    and ((d.state = 'pending' and d.lease_token = i.lease_token) or (d.state <> 'delivered' and i.outcome = 'delivered'));
  get diagnostics settled = row_count;
  return jsonb_build_object('settled', settled);
end
$$;

revoke execute on function public.claim_due(text, integer, integer), public.record(jsonb),
  public.claim_deliveries(integer, integer), public.settle_deliveries(jsonb) from public, anon, authenticated;
grant execute on function public.claim_due(text, integer, integer), public.record(jsonb),
  public.claim_deliveries(integer, integer), public.settle_deliveries(jsonb) to service_role;

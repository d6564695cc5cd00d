-- What: pings, the standing of heartbeats that follows from them, and the worker's two calls to judge them.
-- Why:  a ping is recorded and answered, and judged a moment later by a worker: so it is one insert under one row lock,
--       however much there is to be told of it. The lock is the heartbeat's schedule. Whoever holds it stamps the ping
--       and numbers it, so that pings of one heartbeat are in order; and whoever claims a heartbeat holds it before
--       looking at the time, so that a ping which a claim does not see was stamped after it. Silence is measured by the
--       database's clock, which may be set: nobody is silent for an hour that never was.

-- ---------------------------------------------------------------- pings

create table public.pings (
  id uuid not null default gen_random_uuid(),
  org_id uuid not null,
  monitor_id uuid not null references public.monitors (id) on delete cascade,
  n bigint not null,
  received_at timestamptz not null,
  kind text not null constraint pings_kind check (kind in ('success', 'start', 'fail', 'log', 'ignored')),
  exit_status smallint constraint pings_exit_status check (exit_status between 0 and 255),
  rid uuid,
  duration_ms bigint,
  method text not null constraint pings_method check (method in ('GET', 'HEAD', 'POST')),
  remote_ip text constraint pings_remote_ip_length check (char_length(remote_ip) <= 60),
  user_agent text constraint pings_user_agent_length check (char_length(user_agent) <= 200),
  -- 100,000 bytes, of which each that is no UTF-8 has become three.
  body text constraint pings_body_length check (octet_length(body) <= 300000),
  metrics jsonb constraint pings_metrics check (jsonb_typeof(metrics) = 'object' and octet_length(metrics::text) <= 25000),
  primary key (monitor_id, n, received_at)
) partition by range (received_at);
comment on column public.pings.n is 'The number of the ping among those of its heartbeat: they are judged in this order.';
create index pings_by_time on public.pings (monitor_id, received_at desc);
create index pings_by_id on public.pings (id);
create index pings_by_run on public.pings (monitor_id, rid, n) where rid is not null;
alter table public.pings enable row level security;
revoke all on public.pings from anon, authenticated;
grant select on public.pings to authenticated, anon;
create policy "members see their monitors' pings" on public.pings
  for select to authenticated, anon using (org_id = any (array(select private.my_orgs())));

-- Makes the partition of one UTC day, unless it stands; as private.ensure_check_results_day does.
create function private.ensure_pings_day(day date) returns void
language plpgsql
set search_path = ''
as $$
declare
  partition_name constant text := 'pings_' || to_char(day, 'YYYYMMDD');
begin
  if to_regclass('private.' || partition_name) is not null then
    return;
  end if;
  perform pg_advisory_xact_lock(hashtext('private.ensure_pings_day'));
  if exists (
    select from pg_catalog.pg_class where relname = partition_name and relnamespace = 'private'::regnamespace
  ) then
    return;
  end if;
  execute format(
    'create table private.%I partition of public.pings for values from (%L) to (%L)',
    partition_name, day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC'
  );
  execute format('alter table private.%I enable row level security', partition_name);
  execute format('revoke all on private.%I from public, anon, authenticated', partition_name);
end
$$;

-- Makes the days ahead, drops the days that no plan keeps any longer, and deletes what has passed its own plan's
-- retention, at most `max_rows` of it; the worker calls it every hour, again and again until it is done. A monitor's
-- pings are few and found by its index, so that nothing needs to remember how far this came. Answers {dropped, done}.
create function public.maintain_pings(days_ahead integer, max_rows integer) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  today constant date := (now() at time zone 'UTC')::date;
  longest_days constant integer := coalesce(private.longest_retention_days(), 30);
  expired text;
  dropped integer := 0;
  deleted integer;
begin
  for offset_days in 0..days_ahead loop
    perform private.ensure_pings_day(today + offset_days);
  end loop;
  for expired in
    select c.relname
    from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'public.pings'::regclass and c.relname < 'pings_' || to_char(today - longest_days, 'YYYYMMDD')
  loop
    execute format('drop table private.%I', expired);
    dropped := dropped + 1;
  end loop;
  delete from public.pings p
  using (
    select past.monitor_id, past.n, past.received_at
    from public.plans plan
    join public.organisations o on o.plan = plan.name
    join public.monitors m on m.org_id = o.id and m.kind = 'heartbeat'
    join public.pings past on past.monitor_id = m.id
      and past.received_at < (today - plan.retention_days)::timestamp at time zone 'UTC'
    where plan.retention_days < longest_days
    limit max_rows
  ) gone
  where p.monitor_id = gone.monitor_id and p.n = gone.n and p.received_at = gone.received_at;
  get diagnostics deleted = row_count;
  return jsonb_build_object('dropped', dropped, 'done', deleted < max_rows);
end
$$;
revoke execute on function private.ensure_pings_day(date), public.maintain_pings(integer, integer)
  from public, anon, authenticated;
grant execute on function public.maintain_pings(integer, integer) to service_role;

select public.maintain_pings(7, 1);

-- ---------------------------------------------------------------- where heartbeats stand

-- What the pings up to number `judged_n` have come to (server/features/pings/rules.py), beside `n`, the number of the
-- last one that came. `unjudged_since` is when the first of those between came: it says in which days to look for them.
-- `schedule_since` is when the schedule was last changed: nobody has missed what was not asked of them. `leapt` is by how
-- much the clock was set since the last success, which therefore is that much longer good for.
create table private.heartbeats (
  monitor_id uuid primary key references public.monitors (id) on delete cascade,
  n bigint not null default 0,
  judged_n bigint not null default 0,
  unjudged_since timestamptz,
  last_ping_at timestamptz,
  last_success_at timestamptz,
  leapt interval not null default '0',
  last_duration_ms bigint,
  started_at timestamptz,
  started_rid uuid,
  schedule_since timestamptz not null default now()
) with (fillfactor = 70);
alter table private.heartbeats enable row level security;
revoke all on private.heartbeats from public, anon, authenticated;
insert into private.heartbeats (monitor_id) select m.id from public.monitors m where m.kind = 'heartbeat';

-- A pause and its end start afresh: nothing is expected until the first success. What came before counts as judged.
create function private.keep_heartbeat() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  if tg_op = 'INSERT' then
    insert into private.heartbeats (monitor_id) values (new.id);
  elsif new.paused <> old.paused then
    update private.heartbeats
    set judged_n = n, unjudged_since = null, last_success_at = null, started_at = null, started_rid = null
    where monitor_id = new.id;
  end if;
  if tg_op = 'UPDATE' and new.options is distinct from old.options then
    update private.heartbeats set schedule_since = now() where monitor_id = new.id;
  end if;
  return null;
end
$$;
create trigger start_heartbeat after insert on public.monitors
  for each row when (new.kind = 'heartbeat') execute function private.keep_heartbeat();
create trigger restart_heartbeat after update of paused, options on public.monitors
  for each row when (new.kind = 'heartbeat') execute function private.keep_heartbeat();
revoke execute on function private.keep_heartbeat() from public, anon, authenticated;

-- Heartbeats with their standing and their next pings to be judged, at most 500 of each. For the worker, and for readers,
-- who must see a ping's consequences before a worker has. All in one statement, whose plan PL/pgSQL keeps: to begin with
-- 38 partitions for each heartbeat anew takes longer than to look into the one that matters.
create function private.heartbeat_documents(of_monitors uuid[]) returns table (monitor_id uuid, document jsonb)
language plpgsql stable
set search_path = ''
as $$
begin
  return query
    select m.id, jsonb_build_object(
      'monitor_id', m.id,
      'options', m.options,
      'paused', m.paused,
      'state', m.state,
      'state_since', private.rfc3339(m.state_since),
      'n', h.n,
      'judged_n', h.judged_n,
      'last_ping_at', private.rfc3339(h.last_ping_at),
      'last_success_at', private.rfc3339(h.last_success_at),
      'leapt_seconds', extract(epoch from h.leapt),
      'last_duration_ms', h.last_duration_ms,
      'started_at', private.rfc3339(h.started_at),
      'started_rid', h.started_rid,
      'schedule_since', private.rfc3339(h.schedule_since),
      'pings', coalesce(said.pings, '[]'::jsonb)
    )
    from public.monitors m
    join private.heartbeats h on h.monitor_id = m.id
    left join lateral (
      select jsonb_agg(jsonb_build_object(
          'n', next.n, 'received_at', private.rfc3339(next.received_at), 'kind', next.kind,
          'exit_status', next.exit_status, 'rid', next.rid, 'duration_ms', next.duration_ms
        ) order by next.n) as pings
      from (
        select p.n, p.received_at, p.kind, p.exit_status, p.rid, p.duration_ms
        from public.pings p
        where p.monitor_id = h.monitor_id and p.n > h.judged_n and p.received_at >= h.unjudged_since
        order by p.n
        limit 500
      ) next
    ) said on true
    where m.id = any (of_monitors);
end
$$;

-- Where a heartbeat of the caller's stands, beside the database's time; null where there is none, or the caller may not
-- see it.
create function public.read_heartbeat(monitor_id uuid) returns jsonb
language sql stable security definer
set search_path = ''
as $$
  select d.document || jsonb_build_object('now', private.rfc3339(now()))
  from public.monitors m
  cross join lateral private.heartbeat_documents(array[m.id]) d
  where m.id = read_heartbeat.monitor_id and m.kind = 'heartbeat' and m.org_id = any (array(select private.my_orgs()))
$$;

-- One page of a monitor's pings as a jsonb array, newest first, none older than the plan's retention, though it may not
-- be deleted yet; null where the caller sees no such monitor. Runs as the caller, so that row-level security decides.
create function public.list_pings(monitor_id uuid, before_at timestamptz, before_id uuid, max_rows integer) returns jsonb
language sql stable
set search_path = ''
as $$
  select coalesce((
    select jsonb_agg(to_jsonb(page) order by page.received_at desc, page.id desc)
    from (
      select p.id, p.n, p.received_at, p.kind, p.exit_status, p.rid, p.duration_ms, p.method, p.remote_ip, p.user_agent,
        coalesce(octet_length(p.body), 0) as body_bytes, p.metrics
      from public.pings p
      where p.monitor_id = m.id
        and (before_at is null or (p.received_at <= before_at and (p.received_at < before_at or p.id < before_id)))
        and p.received_at >= kept.since
      order by p.received_at desc, p.id desc
      limit least(max_rows, 201)
    ) page
  ), '[]'::jsonb)
  from public.monitors m
  cross join lateral (
    select now() - make_interval(days => plan.retention_days) as since
    from public.organisations o join public.plans plan on plan.name = o.plan
    where o.id = m.org_id
  ) kept
  where m.id = list_pings.monitor_id
$$;
revoke execute on function private.heartbeat_documents(uuid[]), public.read_heartbeat(uuid),
  public.list_pings(uuid, timestamptz, uuid, integer) from public, anon, authenticated;
grant execute on function public.read_heartbeat(uuid), public.list_pings(uuid, timestamptz, uuid, integer)
  to authenticated, anon;

-- ---------------------------------------------------------------- a ping

-- How long the run took that a ping ends, in milliseconds: since the start ping of the same run id (or of none, where it
-- has none), if no other ping of that run came between. Runs of more than 72 hours are not told from unrelated pings.
-- (healthchecks.io/docs/measuring_script_run_time)
create function private.run_duration_ms(of_monitor uuid, of_run uuid, ended_at timestamptz) returns bigint
language plpgsql stable
set search_path = ''
as $$
declare
  before_it record;
begin
  if of_run is null then
    select p.kind, p.received_at into before_it
    from public.pings p
    where p.monitor_id = of_monitor and p.rid is null and p.kind in ('start', 'success', 'fail')
      and p.received_at between ended_at - interval '72 hours' and ended_at
    order by p.n desc
    limit 1;
  else
    select p.kind, p.received_at into before_it
    from public.pings p
    where p.monitor_id = of_monitor and p.rid = of_run and p.kind in ('start', 'success', 'fail')
      and p.received_at between ended_at - interval '72 hours' and ended_at
    order by p.n desc
    limit 1;
  end if;
  return case before_it.kind when 'start' then extract(epoch from ended_at - before_it.received_at) * 1000 end;
end
$$;

-- The heartbeat that a slug means to the key of this request. Answers its id; null with `status` 404 where there is none
-- or the key may not ping, with 409 where there are several. Makes it where it is missing and `create_missing` says so
-- (`status` 201): what the protocol makes of a job that nobody described. The organisation is locked before that, so that
-- two first pings at once make one.
create function private.pinged_by_slug(of_slug text, create_missing boolean, out monitor_id uuid, out status integer)
language plpgsql
set search_path = ''
as $$
declare
  key public.api_keys;
  found_ids uuid[];
begin
  select * into key from private.key_in_use();
  if key.id is null or not 'pings:write' = any (key.scopes) then
    status := 404;
    return;
  end if;
  if key.last_used_at is null or key.last_used_at < now() - interval '1 minute' then
    update public.api_keys set last_used_at = now() where id = key.id;
  end if;
  for attempt in 1..2 loop
    found_ids := array(
      select m.id from public.monitors m where m.org_id = key.org_id and m.slug = of_slug and m.kind = 'heartbeat' limit 2
    );
    exit when cardinality(found_ids) > 0 or not create_missing or attempt = 2;
    perform from public.organisations o where o.id = key.org_id for no key update;
  end loop;
  if cardinality(found_ids) = 0 and create_missing then
    insert into public.monitors (org_id, name, kind, slug, fail_threshold, recover_threshold, options)
    values (key.org_id, of_slug, 'heartbeat', of_slug, 1, 1,
      '{"period_seconds": 86400, "cron": null, "timezone": "UTC", "grace_seconds": 3600, "max_runtime_seconds": null,
        "manual_resume": false}')
    returning id into monitor_id;
    status := 201;
  elsif cardinality(found_ids) = 1 then
    monitor_id := found_ids[1];
    status := 200;
  else
    status := case cardinality(found_ids) when 0 then 404 else 409 end;
  end if;
end
$$;

-- Takes a ping: of the heartbeat with this `ping_id`, or of that with this `slug` in the organisation of the key that the
-- request came with. Whoever knows the one or holds the other may ping, and learns nothing. Answers the protocol's status:
-- 200, 201 (made by this ping), 404, 409; PT403 quota_exceeded where one more would pass the plan.
-- 1. Find it, and hold it. 2. A ping resumes what is paused, or is ignored where somebody has to. 3. Lock the schedule,
-- then look at the clock. 4. Keep the ping and make the heartbeat due.
create function public.ping(
  ping_id uuid, slug text, create_missing boolean, kind text, exit_status integer, rid uuid, method text, remote_ip text,
  user_agent text, body text, metrics jsonb
) returns integer
language plpgsql security definer
set search_path = ''
as $$
declare
  heartbeat record;
  found_id uuid;
  status integer := 200;
  taken_as text := ping.kind;
  taken_at timestamptz;
  number bigint;
begin
  if ping.ping_id is null then
    select s.monitor_id, s.status into found_id, status from private.pinged_by_slug(ping.slug, create_missing) s;
    if found_id is null then
      return status;
    end if;
  else
    found_id := (select m.id from public.monitors m where m.ping_id = ping.ping_id);
  end if;
  -- The key of the row, as foreign keys hold it: against its deletion, and against nothing else.
  select m.id, m.org_id, m.paused, m.options into heartbeat
  from public.monitors m
  where m.id = found_id
  for key share;
  if heartbeat.id is null then
    return 404;
  end if;

  if heartbeat.paused and (heartbeat.options ->> 'manual_resume')::boolean then
    taken_as := 'ignored';
  elsif heartbeat.paused and taken_as <> 'log' then
    update public.monitors m set paused = false where m.id = heartbeat.id and m.paused;
  end if;

  perform private.ensure_pings_day((clock_timestamp() at time zone 'UTC')::date);
  perform from private.monitor_schedules s where s.monitor_id = heartbeat.id and s.region = '' for update;
  taken_at := clock_timestamp();
  update private.heartbeats h
  set n = h.n + 1, unjudged_since = least(h.unjudged_since, taken_at)
  where h.monitor_id = heartbeat.id
  returning h.n into number;
  insert into public.pings (org_id, monitor_id, n, received_at, kind, exit_status, rid, duration_ms, method, remote_ip,
    user_agent, body, metrics)
  values (heartbeat.org_id, heartbeat.id, number, taken_at, taken_as, ping.exit_status, ping.rid,
    case when taken_as in ('success', 'fail') then private.run_duration_ms(heartbeat.id, ping.rid, taken_at) end,
    ping.method, ping.remote_ip, ping.user_agent, ping.body, ping.metrics);
  if not heartbeat.paused or taken_as in ('success', 'start', 'fail') then
    update private.monitor_schedules s set due_at = taken_at where s.monitor_id = heartbeat.id and s.region = '';
  end if;
  return status;
end
$$;
revoke execute on function private.run_duration_ms(uuid, uuid, timestamptz), private.pinged_by_slug(text, boolean),
  public.ping(uuid, text, boolean, text, integer, uuid, text, text, text, text, jsonb) from public, anon, authenticated;
grant execute on function public.ping(uuid, text, boolean, text, integer, uuid, text, text, text, text, jsonb) to anon;

-- ---------------------------------------------------------------- a clock that is set

-- The last time in which nobody asked: workers were away, or the clock leapt over it. Here that looks the same; a worker
-- who was there before and is there after it knows. Null where it is known to have been a leap.
alter table private.told_time add column gap_began_at timestamptz, add column gap_ended_at timestamptz;

-- Moves what heartbeats were last heard of, as the clock has moved, but for what was heard after `since`; null: all of it.
-- The caller holds their schedules.
create function private.shift_heartbeats(leap interval, since timestamptz) returns void
language sql
set search_path = ''
as $$
  update private.heartbeats h
  set leapt = h.leapt + case when h.last_success_at between since and now() then interval '0' else leap end,
      started_at = h.started_at + case when h.started_at between since and now() then interval '0' else leap end,
      schedule_since = h.schedule_since
        + case when h.schedule_since between since and now() then interval '0' else leap end
$$;

-- As before, and: silence goes back with a clock that was set back, and a time in which nobody asked is remembered.
create or replace function private.notice_clock() returns void
language plpgsql
set search_path = ''
as $$
declare
  told timestamptz;
begin
  select t.told_at into told from private.told_time t;
  if now() < told - interval '20 seconds' then
    update private.told_time set told_at = now(), gap_began_at = null, gap_ended_at = null where told_at = told;
    if found then
      perform private.ensure_pings_day((now() at time zone 'UTC')::date);
      -- In the order in which `record` locks them.
      perform from private.monitor_schedules s order by s.monitor_id, s.region for update;
      update private.monitor_schedules s
      set due_at = case when s.due_at > now() then now() else s.due_at end,
          lease_token = null,
          lease_until = null,
          last_observed_at = case when s.last_observed_at > now() then now() else s.last_observed_at end,
          streak_since = case when s.streak_since > now() then now() else s.streak_since end;
      perform private.shift_heartbeats(now() - told, null);
      update public.pings p set received_at = now()
      from private.heartbeats h
      where h.n > h.judged_n and p.monitor_id = h.monitor_id and p.n > h.judged_n and p.received_at > now();
      update private.heartbeats set unjudged_since = now() where unjudged_since > now();
      update public.deliveries set next_attempt_at = now() where state = 'pending' and next_attempt_at > now();
      update public.deliveries set lease_token = null, lease_until = null where lease_until > now() + interval '10 minutes';
    end if;
  elsif now() > told + interval '10 seconds' then
    update private.told_time t
    set told_at = now(),
        gap_began_at = case when now() > t.told_at + interval '20 seconds' then t.told_at else t.gap_began_at end,
        gap_ended_at = case when now() > t.told_at + interval '20 seconds' then now() else t.gap_ended_at end
    where t.only_row = (select o.only_row from private.told_time o for update skip locked);
  end if;
end
$$;

-- A worker says that the clock had leapt forward when it looked at it, at `noticed_at`, and how far. What heartbeats were
-- last heard of moves on with it, so that nobody has missed what fell into the leap, while what was overdue before stays
-- so; all are judged anew, and what was judged of them meanwhile counts for nothing. Once, however many workers say it, and
-- never where somebody has asked in that time: then it was the worker that stood still. Answers {moved}.
create function public.move_heartbeats(noticed_at timestamptz, leapt_seconds double precision) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  leap constant interval := make_interval(secs => leapt_seconds);
  gap_end timestamptz;
begin
  perform private.notice_clock();
  -- What was stamped by the clock of before lies up to `noticed_at - leap`.
  select t.gap_ended_at into gap_end
  from private.told_time t
  where t.gap_ended_at > noticed_at - leap and t.gap_ended_at - t.gap_began_at >= leap
  for update;
  if gap_end is null then
    return jsonb_build_object('moved', false);
  end if;
  update private.told_time set gap_began_at = null, gap_ended_at = null;
  perform private.ensure_pings_day((day at time zone 'UTC')::date)
  from unnest(array[noticed_at - interval '1 day', noticed_at]) as day;
  perform from private.monitor_schedules s join private.heartbeats h on h.monitor_id = s.monitor_id
  order by s.monitor_id, s.region
  for update of s;
  perform private.shift_heartbeats(leap, gap_end);
  update public.pings p set received_at = p.received_at + leap
  from private.heartbeats h
  where h.n > h.judged_n and p.monitor_id = h.monitor_id and p.n > h.judged_n
    and p.received_at between h.unjudged_since and noticed_at - leap;
  update private.monitor_schedules s
  set lease_token = null, lease_until = null, due_at = case when s.due_at is not null then now() end
  from private.heartbeats h
  where h.monitor_id = s.monitor_id;
  return jsonb_build_object('moved', true);
end
$$;
revoke execute on function private.shift_heartbeats(interval, timestamptz),
  public.move_heartbeats(timestamptz, double precision) from public, anon, authenticated;
grant execute on function public.move_heartbeats(timestamptz, double precision) to service_role;

-- ---------------------------------------------------------------- the worker's calls

-- Leases up to `max_heartbeats` that are due: a ping came, or a deadline has passed. Answers {now, heartbeats: [...]},
-- each with its lease_token. Leased first, and only then the time is taken and the pings are read, each in a statement
-- of its own: a ping that is not among them was stamped after `now`.
-- For `hesitate_seconds` after a time in which nobody asked there is nothing to lease: it may have been a leap of the
-- clock, and whoever knows is to say so (`move_heartbeats`) before anything is taken for missed.
create function public.claim_heartbeats(max_heartbeats integer, lease_seconds integer, hesitate_seconds integer)
returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  leased uuid[];
  told_at timestamptz;
  claimed jsonb;
begin
  perform private.notice_clock();
  if exists (
    select from private.told_time t
    where now() < t.gap_ended_at + make_interval(secs => hesitate_seconds)
      or now() > t.told_at + interval '20 seconds'  -- somebody else is just writing it down
  ) then
    return jsonb_build_object('now', private.rfc3339(clock_timestamp()), 'heartbeats', '[]'::jsonb);
  end if;
  with due as (
    select s.monitor_id
    from private.monitor_schedules s join private.heartbeats h on h.monitor_id = s.monitor_id
    where s.due_at <= now() and (s.lease_until is null or s.lease_until < now())
    order by s.due_at
    limit max_heartbeats
    for update of s skip locked
  ), taken as (
    update private.monitor_schedules s
    set lease_token = gen_random_uuid(), lease_until = now() + make_interval(secs => lease_seconds)
    from due
    where s.monitor_id = due.monitor_id
    returning s.monitor_id
  )
  select array_agg(t.monitor_id) into leased from taken t;
  told_at := clock_timestamp();
  select jsonb_agg(d.document || jsonb_build_object('lease_token', s.lease_token) order by s.due_at) into claimed
  from private.heartbeat_documents(leased) d
  join private.monitor_schedules s on s.monitor_id = d.monitor_id;
  return jsonb_build_object('now', private.rfc3339(told_at), 'heartbeats', coalesce(claimed, '[]'::jsonb));
end
$$;

-- Writes what was judged. Each item:
--   {monitor_id, lease_token, judged_n, last_ping_at, last_success_at, leapt_seconds, last_duration_ms, started_at,
--    started_rid, next_due_at: time | null,
--    verdicts: [{state, state_since, transitions, incident, recovered_at}], in their order}
-- Only while the lease holds: a person's change takes it away. Locks as `record` does. A ping that came meanwhile makes
-- it due at once. Written twice, it changes nothing the second time. Answers {now, counted}.
create function public.record_heartbeats(batch jsonb) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  item record;
  verdict jsonb;
  counted integer := 0;
begin
  perform from public.monitors m
  where m.id in (select (i ->> 'monitor_id')::uuid from jsonb_array_elements(batch) i)
  order by m.id
  for key share;
  perform from public.monitors m
  join jsonb_array_elements(batch) i on m.id = (i ->> 'monitor_id')::uuid
  where i -> 'verdicts' <> '[]'::jsonb
  order by m.id
  for no key update of m;
  perform from private.monitor_schedules s
  where s.monitor_id in (select (i ->> 'monitor_id')::uuid from jsonb_array_elements(batch) i)
  order by s.monitor_id, s.region
  for update;

  for item in
    select i.*
    from jsonb_to_recordset(batch) as i (monitor_id uuid, lease_token uuid, judged_n bigint, last_ping_at timestamptz,
      last_success_at timestamptz, leapt_seconds double precision, last_duration_ms bigint, started_at timestamptz,
      started_rid uuid, next_due_at timestamptz, verdicts jsonb)
    join private.monitor_schedules s on s.monitor_id = i.monitor_id and s.lease_token = i.lease_token
    order by i.monitor_id
  loop
    for verdict in select * from jsonb_array_elements(item.verdicts) loop
      perform private.apply_verdict(item.monitor_id, verdict ->> 'state', (verdict ->> 'state_since')::timestamptz,
        verdict -> 'transitions', nullif(verdict -> 'incident', 'null'::jsonb), (verdict ->> 'recovered_at')::timestamptz);
    end loop;
    update private.heartbeats h
    set judged_n = item.judged_n, last_ping_at = item.last_ping_at, last_success_at = item.last_success_at,
        leapt = make_interval(secs => item.leapt_seconds), last_duration_ms = item.last_duration_ms,
        started_at = item.started_at, started_rid = item.started_rid,
        unjudged_since = case when h.n > item.judged_n then h.unjudged_since end
    where h.monitor_id = item.monitor_id;
    update private.monitor_schedules s
    set lease_token = null, lease_until = null,
        due_at = case when h.n > item.judged_n then now() else item.next_due_at end
    from private.heartbeats h
    where h.monitor_id = item.monitor_id and s.monitor_id = item.monitor_id and s.lease_token = item.lease_token;
    counted := counted + 1;
  end loop;
  return jsonb_build_object('now', private.rfc3339(clock_timestamp()), 'counted', counted);
end
$$;
revoke execute on function public.claim_heartbeats(integer, integer, integer), public.record_heartbeats(jsonb)
  from public, anon, authenticated;
grant execute on function public.claim_heartbeats(integer, integer, integer), public.record_heartbeats(jsonb)
  to service_role;

-- What: raw check results, partitioned by day.
-- Why:  they are evidence with a retention: a day that has passed it is dropped as a table, not deleted as rows.
--       Partitions live in `private`, so that PostgREST cannot serve one past the parent's policies.

create table public.check_results (
  id uuid not null,
  org_id uuid not null,
  monitor_id uuid not null references public.monitors (id) on delete cascade,
  started_at timestamptz not null,
  region text not null,
  outcome text not null constraint check_results_outcome check (outcome in ('up', 'down')),
  counted boolean not null,
  status_code integer,
  error_kind text,
  error_detail text,
  dns_ms double precision,
  connect_ms double precision,
  tls_ms double precision,
  first_byte_ms double precision,
  total_ms double precision,
  remote_ip text,
  tls_expires_at timestamptz,
  primary key (monitor_id, started_at, id)
) partition by range (started_at);
comment on column public.check_results.counted is
  'false where the worker had lost its lease, or the monitor was changed meanwhile: seen, but not judged';
alter table public.check_results enable row level security;
revoke all on public.check_results from anon, authenticated;
grant select on public.check_results to authenticated;
create policy "members see their monitors' results" on public.check_results
  for select to authenticated using (org_id = any (array(select private.my_orgs())));

-- Makes the partition of one UTC day, unless it stands.
create function private.ensure_check_results_day(day date) returns void
language plpgsql
set search_path = ''
as $$
declare
  partition_name constant text := 'check_results_' || to_char(day, 'YYYYMMDD');
begin
  if to_regclass('private.' || partition_name) is not null then
    return;
  end if;
  -- Two workers may find it missing at once; the second waits here and then sees that it stands. It must look into the
  -- table: to_regclass would repeat what it found before the wait.
  perform pg_advisory_xact_lock(hashtext('private.ensure_check_results_day'));
  if exists (
    select from pg_catalog.pg_class where relname = partition_name and relnamespace = 'private'::regnamespace
  ) then
    return;
  end if;
  execute format(
    'create table private.%I partition of public.check_results for values from (%L) to (%L)',
    partition_name, day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC'
  );
  execute format('alter table private.%I enable row level security', partition_name);
  execute format('revoke all on private.%I from public, anon, authenticated', partition_name);
end
$$;

-- Makes the days ahead and drops the days past their retention; the worker calls it at its start and every hour.
-- Answers how many days were dropped.
create function public.maintain_check_results(days_ahead integer, keep_days integer) returns integer
language plpgsql security definer
set search_path = ''
as $$
declare
  today constant date := (now() at time zone 'UTC')::date;
  expired text;
  dropped integer := 0;
begin
  for offset_days in 0..days_ahead loop
    perform private.ensure_check_results_day(today + offset_days);
  end loop;
  for expired in
    select c.relname
    from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'public.check_results'::regclass
      and c.relname < 'check_results_' || to_char(today - keep_days, 'YYYYMMDD')
  loop
    execute format('drop table private.%I', expired);
    dropped := dropped + 1;
  end loop;
  return dropped;
end
$$;
revoke execute on function private.ensure_check_results_day(date) from public, anon, authenticated;
revoke execute on function public.maintain_check_results(integer, integer) from public, anon, authenticated;
grant execute on function public.maintain_check_results(integer, integer) to service_role;

select public.maintain_check_results(7, 30);

-- When a monitor of the caller's was last looked at; null where it never was, or is not the caller's to see.
create function private.last_observed_at(of_monitor uuid) returns timestamptz
language sql stable security definer
set search_path = ''
as $$
  select s.last_observed_at
  from private.monitor_schedules s join public.monitors m on m.id = s.monitor_id
  where s.monitor_id = of_monitor and m.org_id in (select private.my_orgs())
$$;
revoke execute on function private.last_observed_at(uuid) from public, anon;
grant execute on function private.last_observed_at(uuid) to authenticated;
grant execute on function private.rfc3339(timestamptz) to authenticated;

-- What uptime is computed from, in one call: seconds of each state that ended within the window, and the open line.
-- Runs as the caller, so that row-level security decides; null where the caller sees no such monitor.
create function public.monitor_history(monitor_id uuid, from_at timestamptz, to_at timestamptz) returns jsonb
language sql stable
set search_path = ''
as $$
  select jsonb_build_object(
    'now', private.rfc3339(now()),
    'interval_seconds', m.interval_seconds,
    'retry_interval_seconds', m.retry_interval_seconds,
    'paused', m.paused,
    'first_started_at', (select private.rfc3339(min(i.started_at)) from public.intervals i where i.monitor_id = m.id),
    'last_observed_at', private.rfc3339(private.last_observed_at(m.id)),
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
  where m.id = monitor_history.monitor_id
$$;
revoke execute on function public.monitor_history(uuid, timestamptz, timestamptz) from public, anon;
grant execute on function public.monitor_history(uuid, timestamptz, timestamptz) to authenticated;

-- One page of a monitor's results, newest first, as a jsonb array; null where the caller sees no such monitor. Runs as
-- the caller, so that row-level security decides.
create function public.monitor_checks(
  monitor_id uuid, before_at timestamptz, before_id uuid, with_outcome text, max_rows integer
) returns jsonb
language sql stable
set search_path = ''
as $$
  select coalesce((
    select jsonb_agg(to_jsonb(page) order by page.started_at desc, page.id desc)
    from (
      select r.id, r.started_at, r.region, r.outcome, r.counted, r.status_code, r.error_kind, r.error_detail, r.dns_ms,
        r.connect_ms, r.tls_ms, r.first_byte_ms, r.total_ms, r.remote_ip, r.tls_expires_at
      from public.check_results r
      where r.monitor_id = m.id
        and (before_at is null or (r.started_at <= before_at and (r.started_at < before_at or r.id < before_id)))
        and (with_outcome is null or r.outcome = with_outcome)
      order by r.started_at desc, r.id desc
      limit least(max_rows, 201)
    ) page
  ), '[]'::jsonb)
  from public.monitors m
  where m.id = monitor_checks.monitor_id
$$;
revoke execute on function public.monitor_checks(uuid, timestamptz, uuid, text, integer) from public, anon;
grant execute on function public.monitor_checks(uuid, timestamptz, uuid, text, integer) to authenticated;

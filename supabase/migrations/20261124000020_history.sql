-- What: uptime with maintenance taken out, the list of intervals, hourly and daily rollups of check results with their
--       retention, series of response times, and the report of a month.
-- Why:  the ledger and the rollups are what is left once the raw results have passed their retention, so they must say
--       alone how a monitor did, for years. Everything is read with its caller's rights, in one call.

-- ---------------------------------------------------------------- the ledger

-- A window begins in the middle of a ledger that may be years long.
create index intervals_of_monitor_by_end on public.intervals (monitor_id, ended_at);

-- One page of a monitor's ledger as a jsonb array, newest first, before (before_at, before_id): the lines that touch
-- [from_at, to_at), whole; null where the caller sees no such monitor. An open line has been seen as far as somebody
-- looked: of an open hole or pause, and of a heartbeat, which is not looked at, nothing is said.
create function public.list_intervals(
  monitor_id uuid, before_at timestamptz, before_id uuid, with_states text[], from_at timestamptz, to_at timestamptz,
  max_rows integer
) returns jsonb
language sql stable
set search_path = ''
as $$
  select coalesce((
    select jsonb_agg(to_jsonb(page) order by page.started_at desc, page.id desc)
    from (
      select i.id, i.state, i.cause, i.started_at, i.ended_at, seen.until as observed_until,
        floor(extract(epoch from seen.until - i.started_at) * 1000)::bigint as duration_ms
      from public.intervals i
      cross join lateral (
        select case when i.ended_at is not null then i.ended_at
          when i.state <> 'unknown' and last.last_observed_at is not null then greatest(last.last_observed_at, i.started_at)
        end as until
      ) seen
      where i.monitor_id = m.id
        and (before_at is null or (i.started_at <= before_at and (i.started_at < before_at or i.id < before_id)))
        and (with_states is null or i.state = any (with_states))
        and (from_at is null or i.ended_at is null or i.ended_at > from_at)
        and (to_at is null or i.started_at < to_at)
      order by i.started_at desc, i.id desc
      limit least(max_rows, 201)
    ) page
  ), '[]'::jsonb)
  from public.monitors m
  left join lateral private.last_observation(m.id) last on true
  where m.id = list_intervals.monitor_id
$$;

-- What uptime is counted from (server/features/uptime/rules.py), of one monitor: milliseconds of each state that ended
-- within the window, outside maintenance (ended_ms) and within (maintained_ms), a pause apart under `paused`; the open
-- line with the maintenance that falls on it; the longest stretch of `down`, maintenance taken out.
create function private.history_of(of_monitor uuid, from_at timestamptz, to_at timestamptz) returns jsonb
language sql stable
set search_path = ''
as $$
  with maintenance as materialized (
    -- As one value, in which what a line overlaps is found by bisection: a join would hold each line against each window.
    select coalesce(range_agg(tstzrange(w.starts_at, w.ends_at)), '{}') as spans
    from private.maintenance_of(of_monitor, from_at, to_at) w
  ), line as (
    select case when i.cause = 'paused' then 'paused' else i.state end as state,
      tstzrange(greatest(i.started_at, from_at), least(i.ended_at, to_at)) as span
    from public.intervals i
    where i.monitor_id = of_monitor and i.ended_at > from_at and i.started_at < to_at
  ), measured as materialized (
    select l.state, extract(epoch from upper(l.span) - lower(l.span)) as whole, case when w.spans && l.span then (
        select sum(extract(epoch from upper(part) - lower(part))) from unnest(w.spans * tstzmultirange(l.span)) part
      ) else 0 end as maintained
    from line l cross join maintenance w
  ), spent as (
    select d.state, (sum(d.whole - d.maintained) * 1000)::bigint as ms, (sum(d.maintained) * 1000)::bigint as maintained_ms,
      (max(d.whole - d.maintained) * 1000)::bigint as longest_ms
    from measured d
    group by d.state
  ), open_line as (
    select i.state, i.cause, i.started_at from public.intervals i where i.monitor_id = of_monitor and i.ended_at is null
  )
  select jsonb_build_object(
    'now', private.rfc3339(now()),
    'first_started_at', (select private.rfc3339(min(i.started_at)) from public.intervals i where i.monitor_id = of_monitor),
    'last_observed_at', private.rfc3339(last.last_observed_at),
    'last_interval_seconds', last.last_interval_seconds,
    'open', (
      select jsonb_build_object('state', o.state, 'cause', o.cause, 'started_at', private.rfc3339(o.started_at),
        'maintenance', coalesce((
          select jsonb_agg(jsonb_build_array(private.rfc3339(lower(span)), private.rfc3339(upper(span))) order by span)
          from maintenance w cross join lateral unnest(w.spans) span
          where span && tstzrange(o.started_at, now())
        ), '[]'::jsonb))
      from open_line o
    ),
    'ended_ms', coalesce((select jsonb_object_agg(s.state, s.ms) from spent s), '{}'::jsonb),
    'maintained_ms', coalesce((select jsonb_object_agg(s.state, s.maintained_ms) from spent s), '{}'::jsonb),
    'longest_down_ms', coalesce((select s.longest_ms from spent s where s.state = 'down'), 0)
  )
  from (select of_monitor) one
  left join lateral private.last_observation(of_monitor) last on true
$$;

-- The same, or null where the caller sees no such monitor.
create or replace function public.monitor_history(monitor_id uuid, from_at timestamptz, to_at timestamptz) returns jsonb
language sql stable
set search_path = ''
as $$
  select private.history_of(m.id, from_at, to_at) from public.monitors m where m.id = monitor_history.monitor_id
$$;

-- As before, with maintenance taken out of every state: the overview shows what the default accounting counts.
create or replace function private.spent_in_states(of_org uuid, from_at timestamptz) returns jsonb
language sql stable
set search_path = ''
as $$
  with open_line as (
    select i.monitor_id, i.started_at, case when i.cause = 'paused' then 'paused' else i.state end as state,
      case when i.state <> 'unknown'
          and now() - last.last_observed_at > make_interval(secs => 3 * last.last_interval_seconds + 60)
        then least(now(), last.last_observed_at + make_interval(secs => last.last_interval_seconds))
        else now()
      end as looked_until
    from public.intervals i
    left join private.last_observations(of_org) last on last.monitor_id = i.monitor_id
    where i.org_id = of_org and i.ended_at is null
  ), piece as (
    select i.monitor_id, case when i.cause = 'paused' then 'paused' else i.state end as state,
      greatest(i.started_at, from_at) as begins, i.ended_at as ends
    from public.intervals i
    where i.org_id = of_org and i.ended_at > from_at
    union all
    select o.monitor_id, o.state, greatest(o.started_at, from_at), o.looked_until from open_line o
    union all
    select o.monitor_id, 'unknown', greatest(o.started_at, o.looked_until, from_at), now() from open_line o
  ), maintenance as materialized (
    select m.monitor_id, w.starts_at, w.ends_at
    from (select distinct p.monitor_id from piece p) m
    cross join lateral private.maintenance_of(m.monitor_id, from_at, now()) w
  ), part as (
    select p.state, p.ends - p.begins as spent from piece p where p.ends > p.begins
    union all
    select p.state, greatest(w.starts_at, p.begins) - least(w.ends_at, p.ends)
    from piece p join maintenance w on w.monitor_id = p.monitor_id and w.starts_at < p.ends and w.ends_at > p.begins
    where p.ends > p.begins
  ), spent as (
    select p.state, sum(extract(epoch from p.spent) * 1000000)::bigint as us from part p group by p.state
  )
  select coalesce(jsonb_object_agg(s.state, s.us), '{}'::jsonb) from spent s
$$;

-- ---------------------------------------------------------------- rollups

alter table public.plans add column hourly_retention_days integer not null default 400
  constraint plans_hourly_retention_days check (hourly_retention_days between 1 and 3650);
update public.plans set hourly_retention_days = greatest(retention_days, case name when 'free' then 90 else 400 end);
alter table public.plans add constraint plans_hours_outlive_results check (hourly_retention_days >= retention_days);
comment on column public.plans.hourly_retention_days is
  'How long hourly rollups of check results are kept; daily ones, like the history of intervals, are kept for ever.';

-- What a monitor's results of one UTC hour come to, by the region that saw them. `timed` counts those that tell their
-- total_ms; `bins` and `counts` are its histogram, from which the percentiles of any coarser bucket can be had: bin k
-- holds what lies in (g^(k-1), g^k], g = 1.02 / 0.98, so that a value told from its bin alone is off by 2 % at most
-- (Masson, Rim and Lee: DDSketch, 2019). Results of less than a microsecond count as a microsecond.
create table public.check_hours (
  monitor_id uuid not null references public.monitors (id) on delete cascade,
  region text not null,
  started_at timestamptz not null,
  org_id uuid not null references public.organisations (id) on delete cascade,
  up integer not null,
  down integer not null,
  unknown integer not null,
  timed integer not null,
  sum_ms double precision not null,
  min_ms double precision,
  max_ms double precision,
  bins smallint[] not null,
  counts integer[] not null,
  primary key (monitor_id, started_at, region)
);
create index check_hours_by_organisation on public.check_hours (org_id, started_at);
-- The same of one UTC day.
create table public.check_days (like public.check_hours);
alter table public.check_days
  add primary key (monitor_id, started_at, region),
  add constraint check_days_monitor_id_fkey foreign key (monitor_id) references public.monitors (id) on delete cascade,
  add constraint check_days_org_id_fkey foreign key (org_id) references public.organisations (id) on delete cascade;
create index check_days_by_organisation on public.check_days (org_id, started_at);
alter table public.check_hours enable row level security;
alter table public.check_days enable row level security;
revoke all on public.check_hours, public.check_days from anon, authenticated;
grant select on public.check_hours, public.check_days to authenticated, anon;
create policy "members see their monitors' hours" on public.check_hours
  for select to authenticated, anon using (org_id = any (array(select private.my_orgs())));
create policy "members see their monitors' days" on public.check_days
  for select to authenticated, anon using (org_id = any (array(select private.my_orgs())));

-- How far rolling up has come: all hours before `rolled_until`, and in that hour itself the monitors up to `last_monitor`.
-- `ended_until` is the hour that had last ended when the transaction `ended_xid` looked at the clock, `settled_until` the
-- one of which all writers are known to have finished. Days before `dropped_before` have lost their partitions.
create table private.rollup_progress (
  only_row boolean primary key default true constraint rollup_progress_is_one_row check (only_row),
  rolled_until timestamptz not null,
  last_monitor uuid,
  ended_until timestamptz,
  ended_xid xid8,
  settled_until timestamptz,
  dropped_before date
);
-- It begins with the oldest day that stands.
insert into private.rollup_progress (rolled_until)
select least(min(to_date(right(c.relname, 8), 'YYYYMMDD')), (now() at time zone 'UTC')::date)::timestamp at time zone 'UTC'
from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
where i.inhparent = 'public.check_results'::regclass;

-- Hours that had ended when a result of theirs was written. Only ever appended to by writers, who so never wait for
-- whoever rolls up; the same hour may stand here many times.
create table private.late_hours (
  seq bigint generated always as identity primary key,
  monitor_id uuid not null,
  started_at timestamptz not null
);
alter table private.rollup_progress enable row level security;
alter table private.late_hours enable row level security;
revoke all on private.rollup_progress, private.late_hours from public, anon, authenticated;

create function private.hour_of(moment timestamptz) returns timestamptz
language sql immutable parallel safe
set search_path = ''
as $$
  select date_bin('1 hour', moment, '2000-01-01T00:00:00Z')
$$;
create function private.day_of(moment timestamptz) returns timestamptz
language sql immutable parallel safe
set search_path = ''
as $$
  select date_bin('1 day', moment, '2000-01-01T00:00:00Z')
$$;

-- Notes each result that came after its hour's end, by the clock of the moment in which it is written: its transaction
-- has its id by then, which is what `settle_hours` relies on. `settled_until` counts where the clock was set back.
create function private.note_late_results() returns trigger
language plpgsql security definer
set search_path = ''
as $$
declare
  ended_until constant timestamptz := greatest(
    private.hour_of(clock_timestamp()), (select p.settled_until from private.rollup_progress p));
begin
  insert into private.late_hours (monitor_id, started_at)
  select distinct a.monitor_id, private.hour_of(a.started_at) from added_rows a where a.started_at < ended_until;
  return null;
end
$$;
create trigger note_late_results after insert on public.check_results
  referencing new table as added_rows for each statement execute function private.note_late_results();

-- Hours before this one are rolled up, for whoever reads them.
create function private.rolled_until() returns timestamptz
language sql stable security definer
set search_path = ''
as $$
  select p.rolled_until from private.rollup_progress p
$$;

-- Days before this one may lose their results: all of them are in the rollups, late ones too.
create function private.rolled_up_before() returns date
language sql stable
set search_path = ''
as $$
  select (least(p.rolled_until, (select min(l.started_at) from private.late_hours l)) at time zone 'UTC')::date
  from private.rollup_progress p
$$;

-- What the results of some monitors in [from_at, to_at) come to, by hour and region, as check_hours has it. Runs as the
-- caller, so that row-level security decides. Planned anew for each window, of whose days then alone the plan speaks:
-- one that speaks of all that stand takes longer to begin than most hours take to read.
create function private.summarise_results(of_monitors uuid[], from_at timestamptz, to_at timestamptz)
returns setof public.check_hours
language plpgsql stable
set search_path = ''
set plan_cache_mode = force_custom_plan
as $$
begin
  return query with binned as (
    select r.monitor_id, r.region, date_bin('1 hour', r.started_at, '2000-01-01T00:00:00Z') as started_at, r.org_id,
      case when r.total_ms is not null then
        ceil(ln(greatest(r.total_ms, 0.001)) / ln(1.02 / 0.98::double precision))::smallint end as bin,
      count(*) filter (where r.outcome = 'up') as up,
      count(*) filter (where r.outcome = 'down') as down,
      count(*) filter (where r.outcome = 'unknown') as unknown,
      count(r.total_ms) as timed, sum(r.total_ms) as sum_ms, min(r.total_ms) as min_ms, max(r.total_ms) as max_ms
    from public.check_results r
    where r.monitor_id = any (of_monitors) and r.started_at >= from_at and r.started_at < to_at
    group by 1, 2, 3, 4, 5
  )
  select b.monitor_id, b.region, b.started_at, b.org_id, sum(b.up)::integer, sum(b.down)::integer, sum(b.unknown)::integer,
    sum(b.timed)::integer, coalesce(sum(b.sum_ms), 0), min(b.min_ms), max(b.max_ms),
    coalesce(array_agg(b.bin order by b.bin) filter (where b.bin is not null), '{}'),
    coalesce(array_agg(b.timed::integer order by b.bin) filter (where b.bin is not null), '{}')
  from binned b
  group by b.monitor_id, b.region, b.started_at, b.org_id;
end
$$;

-- What hours of some monitors on one UTC day come to, as check_days has it.
create function private.summarise_hours(of_monitors uuid[], of_day timestamptz) returns setof public.check_days
language sql stable
set search_path = ''
as $$
  with part as materialized (
    select h.* from public.check_hours h
    where h.monitor_id = any (of_monitors) and h.started_at >= of_day and h.started_at < of_day + interval '1 day'
  ), histogram as (
    select b.monitor_id, b.region, array_agg(b.bin order by b.bin) as bins, array_agg(b.n order by b.bin) as counts
    from (
      select u.monitor_id, u.region, u.bin, sum(u.n)::integer as n
      from (select p.monitor_id, p.region, unnest(p.bins) as bin, unnest(p.counts) as n from part p) u
      group by u.monitor_id, u.region, u.bin
    ) b
    group by b.monitor_id, b.region
  )
  select p.monitor_id, p.region, of_day, p.org_id, sum(p.up)::integer, sum(p.down)::integer, sum(p.unknown)::integer,
    sum(p.timed)::integer, sum(p.sum_ms), min(p.min_ms), max(p.max_ms), coalesce(g.bins, '{}'), coalesce(g.counts, '{}')
  from part p
  left join histogram g on g.monitor_id = p.monitor_id and g.region = p.region
  group by p.monitor_id, p.region, p.org_id, g.bins, g.counts
$$;

-- Writes an hour of some monitors as their results have it now, and the day where `closes_day`: written again, a row is
-- replaced and never added to. Answers how many results there were.
create function private.write_rollups(of_monitors uuid[], of_hour timestamptz, closes_day boolean) returns integer
language plpgsql
set search_path = ''
as $$
declare
  of_day constant timestamptz := private.day_of(of_hour);
  results integer;
begin
  with written as (
    insert into public.check_hours
    select * from private.summarise_results(of_monitors, of_hour, of_hour + interval '1 hour')
    on conflict (monitor_id, started_at, region) do update
    set up = excluded.up, down = excluded.down, unknown = excluded.unknown, timed = excluded.timed,
        sum_ms = excluded.sum_ms, min_ms = excluded.min_ms, max_ms = excluded.max_ms, bins = excluded.bins,
        counts = excluded.counts
    returning up + down + unknown as n
  )
  select coalesce(sum(w.n), 0) into results from written w;
  if closes_day then
    insert into public.check_days
    select * from private.summarise_hours(of_monitors, of_day)
    on conflict (monitor_id, started_at, region) do update
    set up = excluded.up, down = excluded.down, unknown = excluded.unknown, timed = excluded.timed,
        sum_ms = excluded.sum_ms, min_ms = excluded.min_ms, max_ms = excluded.max_ms, bins = excluded.bins,
        counts = excluded.counts;
  end if;
  return results;
end
$$;

-- Learns which hours can be rolled up: those of which every writer has finished. Without a lock that writers would wait
-- for: a result that is noted nowhere was written before its hour's end, in a transaction that had its id by then; so it
-- is there for all to see once the transactions have finished that ran when somebody first saw that the hour had ended.
-- The price: a transaction that stays open anywhere in the database holds rollups back. Returns the hour before which
-- all have.
create function private.settle_hours() returns timestamptz
language plpgsql
set search_path = ''
as $$
declare
  ended_by_now constant timestamptz := private.hour_of(clock_timestamp());
begin
  update private.rollup_progress p set settled_until = p.ended_until
  where p.ended_xid < pg_snapshot_xmin(pg_current_snapshot()) and p.settled_until is distinct from p.ended_until;
  update private.rollup_progress p set ended_until = ended_by_now, ended_xid = pg_current_xact_id()
  where p.ended_until is null or (p.settled_until = p.ended_until and p.ended_until < ended_by_now);
  return (select p.settled_until from private.rollup_progress p);
end
$$;

-- Rolls hours again into which late results have fallen, up to `max_hours` notes of them. A note of an hour that is not
-- settled yet is dropped: what it speaks of is committed, and will be seen. Where the results are gone by retention, the
-- rollup stays as it is rather than be replaced by the little that came late. Answers how many results there were.
create function private.redo_late_hours(settled timestamptz, max_hours integer) returns integer
language plpgsql
set search_path = ''
as $$
declare
  late record;
  results integer := 0;
begin
  for late in
    with noted as (
      delete from private.late_hours l
      where l.seq in (select o.seq from private.late_hours o order by o.seq limit max_hours)
      returning l.monitor_id, l.started_at
    )
    select n.started_at, array_agg(distinct m.id) as monitors
    from noted n
    join public.monitors m on m.id = n.monitor_id
    left join private.applied_retentions a on a.org_id = m.org_id
    cross join private.rollup_progress p
    where n.started_at < settled
      and n.started_at >= coalesce(greatest(a.kept_from, p.dropped_before), '2000-01-01')::timestamp at time zone 'UTC'
    group by n.started_at
    order by n.started_at
  loop
    results := results + private.write_rollups(late.monitors, late.started_at, true);
  end loop;
  return results;
end
$$;

-- Rolls up what has been settled and is not yet rolled up, an hour of some monitors at a time, until `max_rows` results
-- have been read (those of some monitors more at most) or a second has passed. How many monitors go together follows from
-- how many results the last ones had. The worker calls it every few minutes, again and again until it is done; of two
-- workers at once one does nothing. Answers {rolled_up, done}.
create function public.roll_up(max_rows integer) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  monitors_at_once integer := 20;
  settled_until constant timestamptz := case
    when pg_try_advisory_xact_lock(hashtext('public.roll_up')) then private.settle_hours() end;
  progress private.rollup_progress;
  some_monitors uuid[];
  of_some integer;
  results integer;
begin
  if settled_until is null then
    return jsonb_build_object('rolled_up', 0, 'done', true);
  end if;
  results := private.redo_late_hours(settled_until, max_rows);
  select * into progress from private.rollup_progress;
  while progress.rolled_until < settled_until and results < max_rows and clock_timestamp() < now() + interval '1 second' loop
    some_monitors := array(
      select m.id from public.monitors m
      where progress.last_monitor is null or m.id > progress.last_monitor
      order by m.id
      limit monitors_at_once
    );
    if cardinality(some_monitors) = 0 then
      progress.rolled_until := progress.rolled_until + interval '1 hour';
      progress.last_monitor := null;
    else
      of_some := private.write_rollups(some_monitors, progress.rolled_until,
        private.day_of(progress.rolled_until + interval '1 hour') > progress.rolled_until);
      results := results + of_some;
      monitors_at_once := case when of_some < 5000 then least(2 * monitors_at_once, 1000)
        when of_some > 20000 then greatest(monitors_at_once / 2, 1) else monitors_at_once end;
      progress.last_monitor := some_monitors[cardinality(some_monitors)];
    end if;
  end loop;
  update private.rollup_progress set rolled_until = progress.rolled_until, last_monitor = progress.last_monitor;
  return jsonb_build_object('rolled_up', results, 'done', progress.rolled_until >= settled_until
    and not exists (select from private.late_hours l where l.started_at < settled_until));
end
$$;

-- ---------------------------------------------------------------- retention

-- As before, but a day that is not rolled up stays, however old it is.
create or replace function public.maintain_check_results(days_ahead integer, keep_days integer default 30) returns integer
language plpgsql security definer
set search_path = ''
as $$
declare
  today constant date := (now() at time zone 'UTC')::date;
  kept_from constant date := least(today - coalesce(private.longest_retention_days(), keep_days), private.rolled_up_before());
  expired text;
  dropped integer := 0;
begin
  for offset_days in 0..days_ahead loop
    perform private.ensure_check_results_day(today + offset_days);
  end loop;
  for expired in
    select c.relname
    from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'public.check_results'::regclass and c.relname < 'check_results_' || to_char(kept_from, 'YYYYMMDD')
  loop
    execute format('drop table private.%I', expired);
    dropped := dropped + 1;
  end loop;
  if dropped > 0 then
    update private.rollup_progress p set dropped_before = greatest(p.dropped_before, kept_from);
  end if;
  return dropped;
end
$$;

-- As before, but for the same.
create or replace function public.apply_retention(max_rows integer) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  today constant date := (now() at time zone 'UTC')::date;
  rolled_up_before constant date := private.rolled_up_before();
  longest_days constant integer := private.longest_retention_days();
  oldest_day date;
  overdue record;
  of_day date;
  of_monitor uuid;
  in_one integer;
  deleted integer := 0;
begin
  if not pg_try_advisory_xact_lock(hashtext('public.apply_retention')) then
    return jsonb_build_object('deleted', 0, 'done', true);
  end if;
  select min(to_date(right(c.relname, 8), 'YYYYMMDD')) into oldest_day
  from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
  where i.inhparent = 'public.check_results'::regclass;

  for overdue in
    select o.id as org_id, greatest(a.kept_from, oldest_day) as from_day, kept.from_day as keep_from
    from public.organisations o
    join public.plans p on p.name = o.plan
    cross join lateral (select least(today - p.retention_days, rolled_up_before) as from_day) kept
    left join private.applied_retentions a on a.org_id = o.id
    where p.retention_days < longest_days and (a.kept_from is null or a.kept_from < kept.from_day)
    order by a.kept_from nulls first
  loop
    of_day := overdue.from_day;
    while of_day < overdue.keep_from loop
      if clock_timestamp() > now() + interval '1 second' then
        return jsonb_build_object('deleted', deleted, 'done', false);
      end if;
      for of_monitor in select m.id from public.monitors m where m.org_id = overdue.org_id loop
        delete from public.check_results r
        where r.monitor_id = of_monitor
          and r.started_at >= of_day::timestamp at time zone 'UTC'
          and r.started_at < (of_day + 1)::timestamp at time zone 'UTC';
        get diagnostics in_one = row_count;
        deleted := deleted + in_one;
        if deleted >= max_rows then
          return jsonb_build_object('deleted', deleted, 'done', false);
        end if;
      end loop;
      of_day := of_day + 1;
      insert into private.applied_retentions (org_id, kept_from) values (overdue.org_id, of_day)
      on conflict (org_id) do update set kept_from = excluded.kept_from;
    end loop;
    insert into private.applied_retentions (org_id, kept_from) values (overdue.org_id, overdue.keep_from)
    on conflict (org_id) do update set kept_from = excluded.kept_from;
  end loop;
  return jsonb_build_object('deleted', deleted, 'done', true);
end
$$;

-- Deletes hours that have passed their plan's retention and whose day is rolled up, at most `max_rows`; the worker calls
-- it every hour. Answers how many.
create function public.prune_hours(max_rows integer) returns integer
language sql security definer
set search_path = ''
as $$
  with pruned as (
    delete from public.check_hours h
    where (h.monitor_id, h.started_at, h.region) in (
      select old.monitor_id, old.started_at, old.region
      from public.organisations o
      join public.plans p on p.name = o.plan
      join public.check_hours old on old.org_id = o.id
        and old.started_at < least(private.day_of(now()) - make_interval(days => p.hourly_retention_days),
          private.day_of(private.rolled_until()))
      limit max_rows
    )
    returning 1
  )
  select count(*)::integer from pruned
$$;

-- ---------------------------------------------------------------- series

-- Since when an organisation's results are all there: its plan's retention, or what has been deleted already where the
-- plan was a shorter one before. Nothing where the organisation is none of the caller's.
create function private.results_since(of_org uuid) returns timestamptz
language sql stable security definer
set search_path = ''
as $$
  select greatest(now() - make_interval(days => p.retention_days),
    greatest(a.kept_from, g.dropped_before)::timestamp at time zone 'UTC')
  from public.organisations o
  join public.plans p on p.name = o.plan
  left join private.applied_retentions a on a.org_id = o.id
  cross join private.rollup_progress g
  where o.id = of_org and of_org = any (array(select private.my_orgs()))
$$;

-- A monitor's response times in buckets: {source, buckets}, of the buckets those in which there is anything; null where
-- the caller sees no such monitor. Buckets begin at whole multiples of their length since 2000-01-01T00:00:00Z. The API
-- works the lengths out for each source (server/features/series/rules.py); which one answers is said by what is kept:
--   raw    where `raw_seconds` is given and the results of all of the window are there: exact percentiles;
--   hours  where buckets of `hour_seconds` are shorter than a day and the hours are kept: histograms;
--   days   else, of `day_seconds`. Rollups widen the window to whole hours or days, and end where they have not been
-- made yet: from there on the results themselves count.
create function public.read_series(
  monitor_id uuid, in_region text, from_at timestamptz, to_at timestamptz, raw_seconds double precision,
  hour_seconds double precision, day_seconds double precision
) returns jsonb
language plpgsql stable
set search_path = ''
as $$
declare
  kept record;
  source text;
  buckets jsonb;
begin
  select private.results_since(m.org_id) as results_since,
    now() - make_interval(days => p.hourly_retention_days) as hours_since
  into kept
  from public.monitors m
  join public.organisations o on o.id = m.org_id
  join public.plans p on p.name = o.plan
  where m.id = read_series.monitor_id;
  if not found then
    return null;
  elsif raw_seconds is not null and from_at >= kept.results_since then
    source := 'raw';
    buckets := private.series_of_results(monitor_id, in_region, from_at, to_at, make_interval(secs => raw_seconds));
  elsif hour_seconds < 86400 and from_at >= kept.hours_since then
    source := 'hours';
    buckets := private.series_of_rollups(monitor_id, in_region, private.hour_of(from_at),
      private.hour_of(to_at + interval '1 hour' - interval '1 microsecond'), make_interval(secs => hour_seconds), false);
  else
    source := 'days';
    buckets := private.series_of_rollups(monitor_id, in_region, private.day_of(from_at),
      private.day_of(to_at + interval '1 day' - interval '1 microsecond'), make_interval(secs => day_seconds), true);
  end if;
  return jsonb_build_object('source', source, 'buckets', coalesce(buckets, '[]'::jsonb));
end
$$;

create function private.series_of_results(
  of_monitor uuid, in_region text, from_at timestamptz, to_at timestamptz, step interval
) returns jsonb
language plpgsql stable
set search_path = ''
set plan_cache_mode = force_custom_plan
as $$
begin
  return (select jsonb_agg(to_jsonb(b) order by b.started_at)
  from (
    select date_bin(step, r.started_at, '2000-01-01T00:00:00Z') as started_at, count(*) as count,
      count(*) filter (where r.outcome = 'down') as failed, count(r.total_ms) as timed, sum(r.total_ms) as sum_ms,
      min(r.total_ms) as min_ms, max(r.total_ms) as max_ms,
      percentile_disc(array[0.5, 0.95, 0.99]) within group (order by r.total_ms) as percentiles
    from public.check_results r
    where r.monitor_id = of_monitor and r.started_at >= from_at and r.started_at < to_at
      and (in_region is null or r.region = in_region)
    group by 1
  ) b);
end
$$;

create function private.series_of_rollups(
  of_monitor uuid, in_region text, from_at timestamptz, to_at timestamptz, step interval, by_day boolean
) returns jsonb
language sql stable
set search_path = ''
as $$
  with reached as materialized (
    select u.hours_until, case when by_day then private.day_of(u.hours_until) else '-infinity' end as days_until
    from private.rolled_until() u (hours_until)
  ), part as materialized (
    select date_bin(step, p.started_at, '2000-01-01T00:00:00Z') as bucket, p.*
    from (
      select d.* from public.check_days d, reached u
      where d.monitor_id = of_monitor and d.started_at >= from_at and d.started_at < least(to_at, u.days_until)
      union all
      select h.* from public.check_hours h, reached u
      where h.monitor_id = of_monitor and h.started_at >= greatest(from_at, u.days_until)
        and h.started_at < least(to_at, u.hours_until)
      union all
      select r.* from reached u
      cross join lateral private.summarise_results(array[of_monitor], greatest(from_at, u.hours_until), to_at) r
    ) p
    where in_region is null or p.region = in_region
  ), histogram as (
    select n.bucket, to_jsonb(array_agg(n.bin order by n.bin)) as bins, to_jsonb(array_agg(n.n order by n.bin)) as counts
    from (
      -- Not as lateral functions, which would each fill a table of their own.
      select u.bucket, u.bin, sum(u.n) as n
      from (select p.bucket, unnest(p.bins) as bin, unnest(p.counts) as n from part p) u
      group by u.bucket, u.bin
    ) n
    group by n.bucket
  ), total as (
    select p.bucket, sum(p.up + p.down + p.unknown) as count, sum(p.down) as failed, sum(p.timed) as timed,
      sum(p.sum_ms) as sum_ms, min(p.min_ms) as min_ms, max(p.max_ms) as max_ms
    from part p
    group by p.bucket
  )
  select jsonb_agg(jsonb_build_object('started_at', t.bucket, 'count', t.count, 'failed', t.failed, 'timed', t.timed,
    'sum_ms', t.sum_ms, 'min_ms', t.min_ms, 'max_ms', t.max_ms, 'bins', coalesce(g.bins, '[]'::jsonb),
    'counts', coalesce(g.counts, '[]'::jsonb)) order by t.bucket)
  from total t
  left join histogram g on g.bucket = t.bucket
$$;

-- ---------------------------------------------------------------- reports

-- How each monitor of an organisation did between two moments: {org_id, now, monitors: [...]}, by name, up to
-- `max_monitors`; the API counts and judges. An org_id of null means the caller's own: PT422 org_required where that is
-- not one alone. PT404 for a stranger. Runs as the caller.
create function public.sla_report(org_id uuid, from_at timestamptz, to_at timestamptz, max_monitors integer) returns jsonb
language plpgsql stable
set search_path = ''
as $$
declare
  mine constant uuid[] := array(select private.my_orgs());
  wanted constant uuid := coalesce(sla_report.org_id, case when cardinality(mine) = 1 then mine[1] end);
  monitors jsonb;
begin
  if wanted is null then
    raise exception 'org_required' using errcode = 'PT422', detail = case cardinality(mine)
      when 0 then 'You belong to no organisation yet.' else 'You belong to several organisations: say which one.' end,
      hint = '{"pointer": "org_id"}';
  elsif wanted <> all (mine) then
    raise exception 'not_found' using errcode = 'PT404', detail = 'There is nothing here, or nothing that you may see.';
  end if;
  select jsonb_agg(jsonb_build_object(
      'monitor_id', m.id,
      'name', m.name,
      'kind', m.kind,
      'history', private.history_of(m.id, from_at, to_at),
      'incident_count', (
        select count(*) from public.incidents i
        where i.monitor_id = m.id and i.started_at < to_at and (i.resolved_at is null or i.resolved_at > from_at)
      )
    ) order by private.name_key(m.name), m.id)
  into monitors
  from (
    select * from public.monitors found
    where found.org_id = wanted
    order by private.name_key(found.name), found.id
    limit max_monitors
  ) m;
  return jsonb_build_object('org_id', wanted, 'monitors', coalesce(monitors, '[]'::jsonb));
end
$$;

revoke execute on function private.hour_of(timestamptz), private.day_of(timestamptz), private.note_late_results(),
  private.rolled_until(), private.results_since(uuid), private.rolled_up_before(),
  private.summarise_hours(uuid[], timestamptz), private.summarise_results(uuid[], timestamptz, timestamptz),
  private.write_rollups(uuid[], timestamptz, boolean), private.settle_hours(),
  private.redo_late_hours(timestamptz, integer), public.roll_up(integer), public.prune_hours(integer),
  private.history_of(uuid, timestamptz, timestamptz),
  private.series_of_results(uuid, text, timestamptz, timestamptz, interval),
  private.series_of_rollups(uuid, text, timestamptz, timestamptz, interval, boolean),
  public.list_intervals(uuid, timestamptz, uuid, text[], timestamptz, timestamptz, integer),
  public.read_series(uuid, text, timestamptz, timestamptz, double precision, double precision, double precision),
  public.sla_report(uuid, timestamptz, timestamptz, integer) from public, anon, authenticated;
grant execute on function private.hour_of(timestamptz), private.day_of(timestamptz), private.rolled_until(),
  private.results_since(uuid), private.summarise_results(uuid[], timestamptz, timestamptz),
  private.history_of(uuid, timestamptz, timestamptz),
  private.series_of_results(uuid, text, timestamptz, timestamptz, interval),
  private.series_of_rollups(uuid, text, timestamptz, timestamptz, interval, boolean),
  public.list_intervals(uuid, timestamptz, uuid, text[], timestamptz, timestamptz, integer),
  public.read_series(uuid, text, timestamptz, timestamptz, double precision, double precision, double precision),
  public.sla_report(uuid, timestamptz, timestamptz, integer) to authenticated, anon;
grant execute on function public.roll_up(integer), public.prune_hours(integer) to service_role;

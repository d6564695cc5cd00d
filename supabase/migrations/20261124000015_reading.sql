-- What: an index for each order that a list offers, list_checks, and the overview of a home screen in one call.
-- Why:  a page begins inside an index, wherever it begins: without one, each page of 50 sorts all that an organisation
--       has. Every order is (column, id), so that each index serves both directions.

create index monitors_by_update on public.monitors (org_id, updated_at, id);
create index monitors_by_state_since on public.monitors (org_id, state_since, id);
create index incidents_by_start on public.incidents (org_id, started_at, id);
create index incidents_of_monitor_by_start on public.incidents (monitor_id, started_at, id);

-- What names are sorted by: their code points, in hexadecimal. A page that begins after a name has to say that name in a
-- filter, and the ways of REST to quote one differ from server to server; a key of [x0-9a-f] needs none. It also sorts
-- alike under every collation. Immutable although convert_to is called stable: a database is UTF-8, or not Supabase.
create function private.name_key(name text) returns text
language sql immutable strict parallel safe
set search_path = ''
as $$
  select 'x' || encode(convert_to(name, 'UTF8'), 'hex')
$$;
revoke execute on function private.name_key(text) from public, anon;
grant execute on function private.name_key(text) to authenticated, anon, service_role;
create index monitors_by_name on public.monitors (org_id, private.name_key(name), id);
create index channels_by_name on public.channels (org_id, private.name_key(name), id);
-- The lists in that order read these; they see what their reader may see of the tables. A column that the API is to
-- list has to be added here too (create or replace view).
create view public.named_monitors with (security_invoker = true) as
  select m.*, private.name_key(m.name) as name_key from public.monitors m;
create view public.named_channels with (security_invoker = true) as
  select c.*, private.name_key(c.name) as name_key from public.channels c;
revoke all on public.named_monitors, public.named_channels from public, anon, authenticated;
grant select on public.named_monitors, public.named_channels to authenticated, anon;

-- What the overview looks at: what goes on, and not all that ever was.
create index incidents_going_on on public.incidents (org_id, opened_at, id) where resolved_at is null;
create index deliveries_failed on public.deliveries (org_id, created_at, id)
  where state = 'dead' or (state = 'pending' and last_error is not null);
create index monitors_in_trouble on public.monitors (org_id, state_since) where state in ('down', 'pending', 'degraded');
create index intervals_by_end on public.intervals (org_id, ended_at);

-- One page of a monitor's results as a jsonb array, from `from_at` on, before `to_at`, beginning after (after_at,
-- after_id), and none older than the plan's retention, though it may not be deleted yet; null where the caller sees no
-- such monitor. Runs as the caller, so that row-level security decides. Two branches, of which one runs: an order that
-- depends on an argument can use no index. It takes the place of monitor_checks.
drop function public.monitor_checks(uuid, timestamptz, uuid, text, integer);
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
          r.connect_ms, r.tls_ms, r.first_byte_ms, r.total_ms, r.remote_ip, r.tls_expires_at
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
          r.connect_ms, r.tls_ms, r.first_byte_ms, r.total_ms, r.remote_ip, r.tls_expires_at
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

-- When each monitor of an organisation was last looked at, and at which interval; nothing where it is none of the
-- caller's. Asked once for all, where private.last_observation asks for one.
create function private.last_observations(of_org uuid)
returns table (monitor_id uuid, last_observed_at timestamptz, last_interval_seconds integer)
language sql stable security definer
set search_path = ''
as $$
  select s.monitor_id, s.last_observed_at, s.last_interval_seconds
  from private.monitor_schedules s join public.monitors m on m.id = s.monitor_id
  where m.org_id = of_org and of_org = any (array(select private.my_orgs()))
$$;
revoke execute on function private.last_observations(uuid) from public, anon;
grant execute on function private.last_observations(uuid) to authenticated, anon;

-- Microseconds that an organisation's monitors spent in each state since `from_at`, a pause apart under `paused`: what
-- server/features/uptime/rules.py counts for one monitor, summed over all. An open line counts as far as somebody
-- looked, and from there on as unknown: `missing_since` in server/features/monitors/rules.py, of which tests hold this
-- against the original.
create function private.spent_in_states(of_org uuid, from_at timestamptz) returns jsonb
language sql stable
set search_path = ''
as $$
  with open_line as (
    select i.started_at, case when i.cause = 'paused' then 'paused' else i.state end as state,
      case when i.state <> 'unknown'
          and now() - last.last_observed_at > make_interval(secs => 3 * last.last_interval_seconds + 60)
        then least(now(), last.last_observed_at + make_interval(secs => last.last_interval_seconds))
        else now()
      end as looked_until
    from public.intervals i
    left join private.last_observations(of_org) last on last.monitor_id = i.monitor_id
    where i.org_id = of_org and i.ended_at is null
  ), piece as (
    select case when i.cause = 'paused' then 'paused' else i.state end as state, i.started_at as begins, i.ended_at as ends
    from public.intervals i
    where i.org_id = of_org and i.ended_at > from_at
    union all
    select o.state, o.started_at, o.looked_until from open_line o
    union all
    select 'unknown', greatest(o.started_at, o.looked_until), now() from open_line o
  ), spent as (
    select p.state, sum(extract(epoch from p.ends - greatest(p.begins, from_at)) * 1000000)::bigint as us
    from piece p
    where p.ends > greatest(p.begins, from_at)
    group by p.state
  )
  select coalesce(jsonb_object_agg(s.state, s.us), '{}'::jsonb) from spent s
$$;
revoke execute on function private.spent_in_states(uuid, timestamptz) from public, anon;
grant execute on function private.spent_in_states(uuid, timestamptz) to authenticated, anon;

-- What a home screen needs of each of the caller's organisations, or of one: {organisations: [...]}, at most 50, by
-- name. Runs as the caller, so that row-level security decides; empty where the caller sees no such organisation.
create function public.overview(org_id uuid default null) returns jsonb
language sql stable
set search_path = ''
as $$
  select jsonb_build_object('organisations', coalesce(jsonb_agg(jsonb_build_object(
    'org_id', o.id,
    'name', o.name,
    'my_role', public.my_role(o),
    'monitors', (
      select jsonb_build_object('total', coalesce(sum(t.n), 0), 'paused', coalesce(sum(t.n) filter (where t.paused), 0),
        'by_state', coalesce(jsonb_object_agg(t.state, t.n) filter (where not t.paused), '{}'::jsonb))
      from (
        select m.state, m.paused, count(*) as n from public.monitors m where m.org_id = o.id group by m.paused, m.state
      ) t
    ),
    'in_trouble', coalesce((
      select jsonb_agg(to_jsonb(t) - 'rank' order by t.rank, t.state_since, t.id)
      from (
        select m.id, m.name, m.target, m.state, m.state_since,
          array_position(array['down', 'pending', 'degraded'], m.state) as rank
        from public.monitors m
        where m.org_id = o.id and not m.paused and m.state in ('down', 'pending', 'degraded')
        order by rank, m.state_since, m.id
        limit 20
      ) t
    ), '[]'::jsonb),
    'open_incident_count', (
      select count(*) from public.incidents i where i.org_id = o.id and i.resolved_at is null
    ),
    'open_incidents', coalesce((
      select jsonb_agg(to_jsonb(t) order by t.opened_at desc, t.id desc)
      from (
        select i.* from public.incidents i
        where i.org_id = o.id and i.resolved_at is null
        order by i.opened_at desc, i.id desc
        limit 5
      ) t
    ), '[]'::jsonb),
    'failed_deliveries', coalesce((
      select jsonb_agg(to_jsonb(t) order by t.created_at desc, t.id desc)
      from (
        select d.id, d.channel_id, d.incident_id, d.type, d.state, d.attempts, d.next_attempt_at, d.last_status_code,
          d.last_error, d.created_at
        from public.deliveries d
        where d.org_id = o.id and (d.state = 'dead' or (d.state = 'pending' and d.last_error is not null))
        order by d.created_at desc, d.id desc
        limit 5
      ) t
    ), '[]'::jsonb),
    'spent_24_hours', private.spent_in_states(o.id, now() - interval '24 hours'),
    'spent_7_days', private.spent_in_states(o.id, now() - interval '7 days')
  ) order by o.name, o.id), '[]'::jsonb))
  from (
    select * from public.organisations found
    where overview.org_id is null or found.id = overview.org_id
    order by found.name, found.id
    limit 50
  ) o
$$;
revoke execute on function public.overview(uuid) from public, anon;
grant execute on function public.overview(uuid) to authenticated, anon;

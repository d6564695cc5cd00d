-- What: maintenance windows with their occurrences, and what holds an alert: maintenance, or a parent that is down.
-- Why:  maintenance is an overlay, never a mask. Checks, states and intervals go on as they are, and only the message that
--       an incident has opened waits. The occurrences are written out, so that whether something is in maintenance is a
--       range to compare and no calendar to compute, and so that the past stays as it was: an occurrence that has begun
--       carries whom it covers and outlives its window.

-- ---------------------------------------------------------------- windows

create table public.maintenance_windows (
  id uuid primary key default gen_random_uuid(),
  org_id uuid not null references public.organisations (id) on delete cascade,
  name text not null constraint maintenance_windows_name_length check (char_length(name) between 1 and 200),
  description text constraint maintenance_windows_description_length check (char_length(description) between 1 and 4000),
  all_monitors boolean not null default false,
  monitor_ids uuid[] not null default '{}' constraint maintenance_windows_monitor_ids check (
    cardinality(monitor_ids) <= 200 and array_position(monitor_ids, null) is null
  ),
  starts_at timestamptz not null,
  ends_at timestamptz not null,
  time_zone text not null constraint maintenance_windows_time_zone_length check (char_length(time_zone) between 1 and 100),
  recurrence text constraint maintenance_windows_recurrence_length check (char_length(recurrence) between 1 and 500),
  ended_at timestamptz,
  -- Up to when the occurrences are written; null where no more will come.
  written_until timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  version integer not null default 1,
  constraint maintenance_windows_end_after_start check (ends_at > starts_at and ends_at <= starts_at + interval '31 days'),
  constraint maintenance_windows_cover_all_or_some check (not all_monitors or monitor_ids = '{}')
);
create index maintenance_windows_by_organisation on public.maintenance_windows (org_id, created_at desc, id desc);
create index maintenance_windows_by_monitor on public.maintenance_windows using gin (monitor_ids) where monitor_ids <> '{}';
create index maintenance_windows_to_extend on public.maintenance_windows (written_until) where written_until is not null;
alter table public.maintenance_windows enable row level security;
revoke all on public.maintenance_windows from anon, authenticated;
-- Written by functions alone, since a window and its occurrences change together. `written_until` is nobody's business.
grant select (id, org_id, name, description, all_monitors, monitor_ids, starts_at, ends_at, time_zone, recurrence, ended_at,
  created_at, updated_at, version) on public.maintenance_windows to authenticated, anon;
grant delete on public.maintenance_windows to authenticated, anon;
create policy "members see their organisation's maintenance windows" on public.maintenance_windows
  for select to authenticated, anon using (org_id = any (array(select private.my_orgs())));
create policy "editors delete maintenance windows" on public.maintenance_windows
  for delete to authenticated, anon using (org_id = any (array(select private.my_orgs('editor'))));

-- `window_id` is null where the window was deleted after the occurrence had begun.
create table public.maintenance_occurrences (
  id uuid primary key default gen_random_uuid(),
  org_id uuid not null references public.organisations (id) on delete cascade,
  window_id uuid references public.maintenance_windows (id) on delete set null,
  starts_at timestamptz not null,
  ends_at timestamptz not null,
  all_monitors boolean not null,
  monitor_ids uuid[] not null,
  constraint maintenance_occurrences_end_after_start
    check (ends_at > starts_at and ends_at <= starts_at + interval '31 days'),
  constraint maintenance_occurrences_do_not_overlap exclude using gist (
    window_id with =, tstzrange(starts_at, ends_at) with &&
  )
);
create index maintenance_occurrences_by_organisation on public.maintenance_occurrences
  using gist (org_id, tstzrange(starts_at, ends_at));
create index maintenance_occurrences_by_window on public.maintenance_occurrences (window_id, starts_at);
alter table public.maintenance_occurrences enable row level security;
revoke all on public.maintenance_occurrences from anon, authenticated;
grant select on public.maintenance_occurrences to authenticated, anon;
create policy "members see when there is maintenance" on public.maintenance_occurrences
  for select to authenticated, anon using (org_id = any (array(select private.my_orgs())));

-- A window as it is read: with what goes on now, and when it begins next.
create view public.maintenance_schedule with (security_invoker = true) as
  select w.id, w.org_id, w.name, w.description, w.all_monitors, w.monitor_ids, w.starts_at, w.ends_at, w.time_zone,
    w.recurrence, w.ended_at, running.until is not null as active, running.until as current_until,
    coming.starts_at as next_starts_at, w.created_at, w.updated_at, w.version
  from public.maintenance_windows w
  cross join lateral (
    select max(o.ends_at) as until from public.maintenance_occurrences o
    where o.window_id = w.id and o.starts_at <= now() and o.ends_at > now()
  ) running
  cross join lateral (
    select min(o.starts_at) as starts_at from public.maintenance_occurrences o
    where o.window_id = w.id and o.starts_at > now()
  ) coming;
revoke all on public.maintenance_schedule from public, anon, authenticated;
grant select on public.maintenance_schedule to authenticated, anon;

create function private.prepare_maintenance_window_change() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  if (to_jsonb(new) - 'written_until') is distinct from (to_jsonb(old) - 'written_until') then
    new.version := old.version + 1;
    new.updated_at := now();
  end if;
  return new;
end
$$;
create trigger prepare_change before update on public.maintenance_windows
  for each row execute function private.prepare_maintenance_window_change();

-- That more of its occurrences were written is no change of a window, so no event either.
create trigger append_event after insert or delete or update of org_id, name, description, all_monitors, monitor_ids,
    starts_at, ends_at, time_zone, recurrence, ended_at on public.maintenance_windows
  for each row execute function private.append_event('maintenance_window');

-- A window covers monitors of its own organisation. PT422 unknown_monitor, the place in the hint.
create function private.check_maintained_monitors() returns trigger
language plpgsql security definer
set search_path = ''
as $$
declare
  unknown record;
begin
  select w.id, w.place - 1 as place into unknown
  from unnest(new.monitor_ids) with ordinality as w (id, place)
  where not exists (select from public.monitors m where m.id = w.id and m.org_id = new.org_id)
  order by w.place
  limit 1;
  if found then
    raise exception 'unknown_monitor' using errcode = 'PT422',
      detail = format('There is no monitor %s in this organisation.', unknown.id),
      hint = jsonb_build_object('pointer', '/monitor_ids/' || unknown.place)::text;
  end if;
  return null;
end
$$;
create trigger check_monitors after insert or update of monitor_ids on public.maintenance_windows
  for each row execute function private.check_maintained_monitors();

create function private.forget_maintained_monitor() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  update public.maintenance_windows set monitor_ids = array_remove(monitor_ids, old.id)
  where monitor_ids <> '{}' and monitor_ids @> array[old.id];
  return null;
end
$$;
create trigger forget_maintained_monitor after delete on public.monitors
  for each row execute function private.forget_maintained_monitor();

-- Ends what goes on now and takes back what lies ahead. What is over stays.
create function private.end_maintenance(of_window uuid) returns void
language sql
set search_path = ''
as $$
  delete from public.maintenance_occurrences o where o.window_id = of_window and o.starts_at >= now();
  update public.maintenance_occurrences o set ends_at = now() where o.window_id = of_window and o.ends_at > now();
$$;

create function private.end_maintenance_of_deleted_window() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  perform private.end_maintenance(old.id);
  return old;
end
$$;
create trigger end_maintenance_when_deleted before delete on public.maintenance_windows
  for each row execute function private.end_maintenance_of_deleted_window();

-- Writes occurrences [{starts_at, ends_at}] of a window. Nothing is maintenance after the fact: one that has begun begins
-- now, one that is over is left out. Those that stand already stay: writing them twice changes nothing.
create function private.write_occurrences(of_window public.maintenance_windows, occurrences jsonb) returns void
language sql
set search_path = ''
as $$
  insert into public.maintenance_occurrences (org_id, window_id, starts_at, ends_at, all_monitors, monitor_ids)
  select of_window.org_id, of_window.id, greatest(o.starts_at, now()), o.ends_at, of_window.all_monitors,
    of_window.monitor_ids
  from jsonb_to_recordset(occurrences) as o (starts_at timestamptz, ends_at timestamptz)
  where o.ends_at > now() and o.starts_at < now() + interval '20 years'
  order by o.starts_at
  limit 500
  on conflict do nothing
$$;

create function private.maintenance_document(of_window uuid) returns jsonb
language sql stable
set search_path = ''
as $$
  select to_jsonb(s) from public.maintenance_schedule s where s.id = of_window
$$;

-- Creates a window with its next occurrences [{starts_at, ends_at}], which reach as far as `written_until` (null: there
-- are no more) and answers with it. PT404 where the caller is no member, PT403 where a viewer, PT422 unknown_monitor.
create function public.create_maintenance_window(draft jsonb, occurrences jsonb, written_until timestamptz default null)
returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  created public.maintenance_windows;
begin
  perform private.require_role((draft ->> 'org_id')::uuid, 'editor');
  insert into public.maintenance_windows (org_id, name, description, all_monitors, monitor_ids, starts_at, ends_at,
    time_zone, recurrence, written_until)
  select d.org_id, d.name, d.description, coalesce(d.all_monitors, false), coalesce(d.monitor_ids, '{}'), d.starts_at,
    d.ends_at, d.time_zone, d.recurrence, create_maintenance_window.written_until
  from jsonb_to_record(draft) as d (org_id uuid, name text, description text, all_monitors boolean, monitor_ids uuid[],
    starts_at timestamptz, ends_at timestamptz, time_zone text, recurrence text)
  returning * into created;
  perform private.write_occurrences(created, occurrences);
  return private.maintenance_document(created.id);
end
$$;

-- Changes a window and answers with it, null where it has moved past `expected_version`. With `occurrences` what goes on
-- ends, and what lies ahead is what they say; without, those stay as they are. PT404, PT403, PT422 as above.
create function public.change_maintenance_window(
  window_id uuid, changes jsonb, expected_version integer default null, occurrences jsonb default null,
  written_until timestamptz default null
) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  standing public.maintenance_windows;
  changed public.maintenance_windows;
begin
  select * into standing from public.maintenance_windows w where w.id = change_maintenance_window.window_id for update;
  perform private.require_role(standing.org_id, 'editor');
  if standing.version <> expected_version then
    return null;
  end if;
  select * into changed from jsonb_populate_record(standing, changes - array['id', 'org_id']);
  update public.maintenance_windows w
  set name = changed.name, description = changed.description, all_monitors = changed.all_monitors,
      monitor_ids = changed.monitor_ids, starts_at = changed.starts_at, ends_at = changed.ends_at,
      time_zone = changed.time_zone, recurrence = changed.recurrence,
      written_until = case when occurrences is null then w.written_until else change_maintenance_window.written_until end
  where w.id = standing.id
  returning * into changed;
  if occurrences is not null then
    perform private.end_maintenance(standing.id);
    perform private.write_occurrences(changed, occurrences);
  end if;
  return private.maintenance_document(standing.id);
end
$$;

-- Ends what goes on now of a window, before its time, and answers with the window; null where it has moved past
-- `expected_version`. PT409 not_in_maintenance where nothing goes on. PT404, PT403 as above.
create function public.end_maintenance_window(window_id uuid, expected_version integer default null) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  standing public.maintenance_windows;
begin
  select * into standing from public.maintenance_windows w where w.id = end_maintenance_window.window_id for update;
  perform private.require_role(standing.org_id, 'editor');
  if standing.version <> expected_version then
    return null;
  end if;
  -- One that begins at this very moment is taken back whole: an occurrence of no length is none.
  delete from public.maintenance_occurrences o where o.window_id = standing.id and o.starts_at = now();
  update public.maintenance_occurrences o set ends_at = now()
  where o.window_id = standing.id and o.starts_at < now() and o.ends_at > now();
  if not found then
    raise exception 'not_in_maintenance' using errcode = 'PT409', detail = 'Nothing of this window goes on at the moment.';
  end if;
  update public.maintenance_windows set ended_at = now() where id = standing.id;
  return private.maintenance_document(standing.id);
end
$$;

-- Recurring windows of which less than `days_ahead` days are written:
-- [{id, version, starts_at, ends_at, time_zone, recurrence, written_until}], at most `max_windows`.
create function public.windows_to_extend(days_ahead integer, max_windows integer) returns jsonb
language sql stable security definer
set search_path = ''
as $$
  select coalesce(jsonb_agg(jsonb_build_object(
      'id', w.id,
      'version', w.version,
      'starts_at', private.rfc3339(w.starts_at),
      'ends_at', private.rfc3339(w.ends_at),
      'time_zone', w.time_zone,
      'recurrence', w.recurrence,
      'written_until', private.rfc3339(w.written_until),
      'now', private.rfc3339(now())
    ) order by w.written_until), '[]'::jsonb)
  from (
    select * from public.maintenance_windows o
    where o.written_until < now() + make_interval(days => days_ahead)
    order by o.written_until
    limit max_windows
  ) w
$$;

-- Writes more occurrences of a window, unless it has changed since it was read. Answers whether it did.
create function public.extend_window(
  window_id uuid, version integer, occurrences jsonb, written_until timestamptz default null
) returns boolean
language plpgsql security definer
set search_path = ''
as $$
declare
  extended public.maintenance_windows;
begin
  update public.maintenance_windows w set written_until = extend_window.written_until
  where w.id = extend_window.window_id and w.version = extend_window.version
  returning * into extended;
  if extended.id is null then
    return false;
  end if;
  perform private.write_occurrences(extended, occurrences);
  return true;
end
$$;

-- When a monitor is in maintenance within [from_at, to_at): merged where windows touch or overlap, cut to the bounds, in
-- their order.
create function private.maintenance_of(of_monitor uuid, from_at timestamptz, to_at timestamptz)
returns table (starts_at timestamptz, ends_at timestamptz)
language sql stable
set search_path = ''
as $$
  select lower(covered), upper(covered)
  from (
    select unnest(range_agg(tstzrange(greatest(o.starts_at, from_at), least(o.ends_at, to_at)))) as covered
    from public.monitors m
    join public.maintenance_occurrences o on o.org_id = m.org_id
    where m.id = of_monitor and (o.all_monitors or o.monitor_ids @> array[m.id])
      and tstzrange(o.starts_at, o.ends_at) && tstzrange(from_at, to_at)
  ) merged
  order by lower(covered)
$$;

revoke execute on function private.prepare_maintenance_window_change(), private.check_maintained_monitors(),
  private.forget_maintained_monitor(), private.end_maintenance(uuid), private.end_maintenance_of_deleted_window(),
  private.write_occurrences(public.maintenance_windows, jsonb), private.maintenance_document(uuid)
  from public, anon, authenticated;
revoke execute on function private.maintenance_of(uuid, timestamptz, timestamptz),
  public.create_maintenance_window(jsonb, jsonb, timestamptz),
  public.change_maintenance_window(uuid, jsonb, integer, jsonb, timestamptz),
  public.end_maintenance_window(uuid, integer), public.windows_to_extend(integer, integer),
  public.extend_window(uuid, integer, jsonb, timestamptz) from public, anon, authenticated;
grant execute on function private.maintenance_of(uuid, timestamptz, timestamptz),
  public.create_maintenance_window(jsonb, jsonb, timestamptz),
  public.change_maintenance_window(uuid, jsonb, integer, jsonb, timestamptz),
  public.end_maintenance_window(uuid, integer) to authenticated, anon;
grant execute on function public.windows_to_extend(integer, integer),
  public.extend_window(uuid, integer, jsonb, timestamptz) to service_role;

-- ---------------------------------------------------------------- what holds an alert

-- `held_by`: why the message that an incident has opened waits, [{kind: "dependency", monitor_id, name} |
-- {kind: "maintenance", window_id, name, until}]; null where it does not. `alerted_at`: when the message was put into the
-- outbox. `evidence.held` keeps each change, [{at, by}]: an empty `by` last says since when nothing holds it any more, while
-- the monitor is looked at once more.
alter table public.incidents
  add column held_by jsonb,
  add column alerted_at timestamptz,
  add constraint incidents_held_or_alerted check (held_by is null or (alerted_at is null and resolved_at is null));
-- Until now everybody was told at once. No event: nothing happens to them.
alter table public.incidents disable trigger user;
update public.incidents set alerted_at = opened_at;
alter table public.incidents enable trigger user;
create index incidents_held on public.incidents (id) where held_by is not null;

-- What holds the alert of a monitor now; null where nothing does. A parent holds, however far up, while it is down or may
-- be (pending); one that is paused, unknown or up does not. Step by step and no recursive query, which Postgres plans for a
-- hundred times the rows that there are: 3.4 ms instead of 0.1 among 5,000 monitors. Who has been seen is not asked again,
-- so that a circle, which cannot be, ends.
create function private.holds_of(of_monitor uuid) returns jsonb
language plpgsql stable
set search_path = ''
as $$
declare
  of_org uuid;
  parents uuid[];
  ancestors uuid[] := '{}';
begin
  select m.org_id, m.depends_on into of_org, parents from public.monitors m where m.id = of_monitor;
  while cardinality(parents) > 0 loop
    ancestors := ancestors || parents;
    parents := array(
      select distinct parent
      from public.monitors m cross join lateral unnest(m.depends_on) parent
      where m.id = any (parents) and parent <> all (ancestors)
    );
  end loop;
  return (
    select jsonb_agg(h.hold order by h.hold)
    from (
      select jsonb_build_object('kind', 'dependency', 'monitor_id', p.id, 'name', p.name) as hold
      from public.monitors p
      where p.id = any (ancestors) and p.id <> of_monitor and not p.paused and p.state in ('down', 'pending')
      union all
      select jsonb_build_object('kind', 'maintenance', 'window_id', w.id, 'name', w.name,
        'until', private.rfc3339(max(o.ends_at)))
      from public.maintenance_occurrences o
      join public.maintenance_windows w on w.id = o.window_id
      where o.org_id = of_org and tstzrange(o.starts_at, o.ends_at) @> now()
        and (o.all_monitors or o.monitor_ids @> array[of_monitor])
      group by w.id, w.name
    ) h
  );
end
$$;

-- Adds a line to what an incident's evidence says of its alert, `held`: [{at, by}], an empty `by` where nothing holds it
-- any longer. At most 50 lines, the last ones.
create function private.note_hold(evidence jsonb, by jsonb) returns jsonb
language sql stable
set search_path = ''
as $$
  select evidence || jsonb_build_object('held',
    case when jsonb_array_length(evidence -> 'held') >= 50 then (evidence -> 'held') - 0 else coalesce(evidence -> 'held', '[]') end
    || jsonb_build_object('at', private.rfc3339(clock_timestamp()), 'by', coalesce(by, '[]'::jsonb)))
$$;

-- Since when nothing holds a held incident any more; null where something does. A time that is yet to come, of a clock that
-- was set back, says nothing: else the alert would wait until then.
create function private.hold_ended_at(evidence jsonb) returns timestamptz
language sql stable
set search_path = ''
as $$
  select ended.at
  from (select (evidence #>> '{held,-1,at}')::timestamptz as at where evidence #> '{held,-1,by}' = '[]') ended
  where ended.at <= now()
$$;

-- Whether the message of a new incident waits, and for what.
create function private.decide_alert() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  new.held_by := private.holds_of(new.monitor_id);
  if new.held_by is null then
    new.alerted_at := clock_timestamp();
  else
    new.evidence := private.note_hold(new.evidence, new.held_by);
  end if;
  return new;
end
$$;
create trigger decide_alert before insert on public.incidents
  for each row execute function private.decide_alert();

-- What has ended before anybody was told of it is held no longer, and nobody will be told.
create function private.drop_hold_of_resolved() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  if new.resolved_at is not null and new.held_by is not null then
    new.held_by := null;
  end if;
  return new;
end
$$;
-- After `prepare_change`, by its name, which is what resolves an incident.
create trigger prepare_hold before update on public.incidents
  for each row execute function private.drop_hold_of_resolved();

-- As before, and: whoever was told of an opening is told what becomes of it, and what was never told needs no end.
create or replace function private.tell_of_incident() returns trigger
language plpgsql security definer
set search_path = ''
as $$
declare
  is_opening constant boolean := tg_op = 'INSERT' or old.alerted_at is null;
  message_type constant text := 'incident.' || case when is_opening then 'opened' else new.state end;
begin
  if new.alerted_at is null then
    return null;
  end if;
  insert into public.deliveries (id, org_id, channel_id, incident_id, type, payload)
  select message.id, new.org_id, c.id, new.id, message_type,
    private.incident_payload(message.id, message_type, new, m, o)
  from public.channels c
  cross join lateral (select gen_random_uuid() as id, c.id as of_channel) message
  join public.organisations o on o.id = c.org_id
  join public.monitors m on m.id = new.monitor_id
  where c.org_id = new.org_id;
  return null;
end
$$;
create trigger tell_when_released after update of alerted_at on public.incidents
  for each row when (old.alerted_at is null and new.alerted_at is not null) execute function private.tell_of_incident();

-- Whether a monitor has been seen to fail since a moment: every region of it has looked, and one has seen no success. Who
-- has not looked yet is made to look at once. A heartbeat is looked at by nobody, and after five minutes nothing is waited
-- for: a region may be away.
create function private.still_fails(of_monitor uuid, since timestamptz) returns boolean
language plpgsql
set search_path = ''
as $$
begin
  if since < now() - interval '5 minutes'
    or exists (select from public.monitors m where m.id = of_monitor and m.kind = 'heartbeat') then
    return true;
  end if;
  -- Whoever records a check holds its schedule and then wants the incident, which we hold: we do not wait for it.
  update private.monitor_schedules s set due_at = now()
  where (s.monitor_id, s.region) in (
    select late.monitor_id, late.region from private.monitor_schedules late
    where late.monitor_id = of_monitor and late.due_at > now() and late.lease_token is null
      and (late.last_observed_at < since) is not false
    for update skip locked
  );
  return (
    select bool_and(coalesce(s.last_observed_at >= since, false)) and bool_or(s.successes = 0)
    from private.monitor_schedules s
    where s.monitor_id = of_monitor
  ) is not false;
end
$$;

-- The held incidents to look at: while there are few, all of them. Of many, those whose hold has ended, one of whose holds is
-- no more, and each second another sixteenth of the rest, for what else may have changed. At most 500, whichever.
create function private.held_incidents() returns setof public.incidents
language sql
set search_path = ''
as $$
  select i.*
  from public.incidents i
  where i.held_by is not null and (
    (select count(*) <= 100 from (select from public.incidents f where f.held_by is not null limit 101) few)
    or private.hold_ended_at(i.evidence) is not null
    or hashtext(i.id::text) & 15 = extract(epoch from now())::bigint % 16
    or exists (
      select from jsonb_array_elements(i.held_by) hold
      where case hold ->> 'kind'
        when 'dependency' then not exists (
          select from public.monitors p
          where p.id = (hold ->> 'monitor_id')::uuid and not p.paused and p.state in ('down', 'pending')
        )
        else (hold ->> 'until')::timestamptz <= now() or not exists (
          select from public.maintenance_occurrences o
          where o.window_id = (hold ->> 'window_id')::uuid and o.ends_at = (hold ->> 'until')::timestamptz
        )
      end
    )
  )
  order by random()
  limit 500
$$;

-- Tells of the incidents that nothing holds any longer and that still go on, and keeps up what the others are held by. The
-- worker calls it about every second; it costs one look at an index where nothing is held; of two workers at once one does
-- nothing. When the last hold ends, the monitor is looked at once more first: what depended on a parent has not been asked
-- since the parent came back, and would page everybody for what is over. An incident that somebody is just changing is left
-- to the next time. Answers {released}.
create function public.release_alerts() returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  incident public.incidents;
  holds jsonb;
  ended_at timestamptz;
  changed integer := 0;
  released integer := 0;
begin
  if not exists (select from public.incidents i where i.held_by is not null)
    or not pg_try_advisory_xact_lock(hashtext('public.release_alerts')) then
    return jsonb_build_object('released', 0);
  end if;
  for incident in select * from private.held_incidents() loop
    holds := private.holds_of(incident.monitor_id);
    ended_at := private.hold_ended_at(incident.evidence);
    continue when case
      when holds is not null then holds = incident.held_by and ended_at is null
      else ended_at is not null and not private.still_fails(incident.monitor_id, ended_at)
    end;
    perform from public.incidents i where i.id = incident.id and i.held_by is not null for update skip locked;
    continue when not found;
    if holds is not null then
      update public.incidents i
      set held_by = holds, evidence = private.note_hold(i.evidence, holds)
      where i.id = incident.id;
    elsif ended_at is null then
      update public.incidents i set evidence = private.note_hold(i.evidence, null) where i.id = incident.id;
      perform private.still_fails(incident.monitor_id, clock_timestamp());
    else
      update public.incidents i set held_by = null, alerted_at = clock_timestamp() where i.id = incident.id;
      released := released + 1;
    end if;
    -- What is changed stays locked until the end, and whoever records a check may want it.
    changed := changed + 1;
    exit when changed = 100;
  end loop;
  return jsonb_build_object('released', released);
end
$$;
revoke execute on function private.holds_of(uuid), private.held_incidents(), private.note_hold(jsonb, jsonb),
  private.hold_ended_at(jsonb), private.decide_alert(),
  private.drop_hold_of_resolved(), private.still_fails(uuid, timestamptz), public.release_alerts()
  from public, anon, authenticated;
grant execute on function public.release_alerts() to service_role;

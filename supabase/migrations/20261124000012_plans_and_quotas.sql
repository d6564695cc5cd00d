-- What: plans, the plan of each organisation, and the triggers that hold an organisation to it; retention per plan.
-- Why:  a limit that the API alone counts is passed by two requests at once, and by whoever asks PostgREST directly. Here
--       whoever adds something first locks the organisation's row and then counts, so that the next one counts what the
--       one before has written. `for no key update`: the foreign keys of everybody else's rows are not kept waiting.
--
--       Plans are the operator's, by SQL or with the secret key; nobody who signs in can write them or change plans:
--         update organisations set plan = 'free' where id = '…';
--         alter table organisations alter column plan set default 'free';      -- for those to come
--         update plans set monitors = 50 where name = 'free';                  -- or insert one of your own
--       A lower limit deletes nothing: what stands stays, and nothing new comes in until there is room again. What has
--       passed the plan's retention is deleted, as always.

create table public.plans (
  name text primary key constraint plans_name_form check (name ~ '^[a-z][a-z0-9_]{0,39}$'),
  monitors integer constraint plans_monitors check (monitors >= 0),
  members integer constraint plans_members check (members >= 1),
  channels integer constraint plans_channels check (channels >= 0),
  api_keys integer constraint plans_api_keys check (api_keys >= 0),
  shortest_interval_seconds integer not null default 5
    constraint plans_shortest_interval_seconds check (shortest_interval_seconds between 5 and 86400),
  retention_days integer not null default 30 constraint plans_retention_days check (retention_days between 1 and 3650)
);
comment on table public.plans is
  'What an organisation may have. Null is no limit. Changed by SQL or with the secret key alone.';
comment on column public.plans.retention_days is 'How long raw check results are kept; the history of intervals is kept for ever.';
alter table public.plans enable row level security;
revoke all on public.plans from anon, authenticated;
grant select on public.plans to authenticated, anon;
create policy "everybody sees what plans there are" on public.plans
  for select to authenticated, anon using (true);

-- `unlimited` is what every organisation had before there were plans, and what a new one gets: who runs this for
-- themselves meets no limit that they have not set.
insert into public.plans (name, monitors, members, channels, api_keys, shortest_interval_seconds, retention_days) values
  ('free', 20, 3, 3, 2, 60, 7),
  ('standard', 200, 25, 25, 25, 30, 30),
  ('unlimited', null, null, null, null, 5, 30);

alter table public.organisations add column plan text not null default 'unlimited'
  constraint organisations_plan_fkey references public.plans (name) on update cascade;
create index organisations_by_plan on public.organisations (plan);

-- How much an organisation has of what its plan counts; of keys, those that stand and were not rotated: one that was
-- gives its place to its successor. With its owner's rights, since keys are hidden from most members: it is asked by
-- triggers, and of organisations that the caller sees. A new quota is a column of plans, a line here, a line in
-- `organisation_usage`, and a trigger `enforce_quota` on its table.
create function private.count_used(of_org uuid, quota text) returns integer
language sql stable security definer
set search_path = ''
as $$
  select case quota
    when 'monitors' then (select count(*) from public.monitors m where m.org_id = of_org)
    when 'members' then (select count(*) from public.memberships m where m.org_id = of_org)
    when 'channels' then (select count(*) from public.channels c where c.org_id = of_org)
    when 'api_keys' then (
      select count(*) from public.api_keys k
      where k.org_id = of_org and k.revoked_at is null and k.replaced_by is null
        and (k.expires_at is null or k.expires_at > now())
    )
  end::integer
$$;
revoke execute on function private.count_used(uuid, text) from public, anon;
grant execute on function private.count_used(uuid, text) to authenticated, anon;

-- Refuses a statement that adds more rows than an organisation's plan allows: PT403 quota_exceeded, the limit in the
-- hint. The trigger's argument is the quota's name, which is plans' column. After the rows and not before, because by
-- then row-level security has said whether the caller may write there at all: a stranger is told of no plan.
--
-- A statement counts once, however many rows it adds, and not at all where the plan has no limit. A transaction that adds
-- one by one counts once too: from then on nobody else can add, so it remembers in a setting of its own what there is by
-- now. Whatever rolls back to a savepoint takes back the lock, the rows and the setting together. Before it refuses, it
-- counts again, since rows may have gone meanwhile.
create function private.enforce_quota() returns trigger
language plpgsql security definer
set search_path = ''
as $$
declare
  quota constant text := tg_argv[0];
  added record;
  plan_name text;
  allowed integer;
  used integer;
begin
  for added in
    select a.org_id, count(*) as rows, quota || '/' || a.org_id || '/' as memo
    from added_rows a group by a.org_id order by a.org_id
  loop
    select o.plan, (to_jsonb(p) ->> quota)::integer into plan_name, allowed
    from public.organisations o join public.plans p on p.name = o.plan
    where o.id = added.org_id;
    continue when allowed is null;

    used := added.rows + case when starts_with(current_setting('tocsin.counted', true), added.memo)
      then substr(current_setting('tocsin.counted', true), length(added.memo) + 1)::integer end;
    if used is null or used > allowed then
      -- Two statements, no join: who has waited for the lock must see the plan as it is by now.
      select o.plan into plan_name from public.organisations o where o.id = added.org_id for no key update;
      select (to_jsonb(p) ->> quota)::integer into allowed from public.plans p where p.name = plan_name;
      used := private.count_used(added.org_id, quota);
    end if;
    if used > allowed then
      used := used - added.rows;
      raise exception 'quota_exceeded' using errcode = 'PT403',
        detail = format('The plan %s allows %s %s, and the organisation has %s.', plan_name, allowed,
          replace(case allowed when 1 then rtrim(quota, 's') else quota end, '_', ' '), used),
        hint = jsonb_build_object('quota', jsonb_build_object('name', quota, 'limit', allowed, 'used', used))::text;
    end if;
    perform set_config('tocsin.counted', added.memo || used, true);
  end loop;
  return null;
end
$$;
create trigger enforce_quota after insert on public.monitors
  referencing new table as added_rows for each statement execute function private.enforce_quota('monitors');
create trigger enforce_quota after insert on public.memberships
  referencing new table as added_rows for each statement execute function private.enforce_quota('members');
create trigger enforce_quota after insert on public.channels
  referencing new table as added_rows for each statement execute function private.enforce_quota('channels');
create trigger enforce_quota after insert on public.api_keys
  referencing new table as added_rows for each statement execute function private.enforce_quota('api_keys');

-- Refuses an interval shorter than the plan allows: PT422 interval_below_plan, with its pointer and the limit in the
-- hint. One that stood before stays until it is changed. After the row, for the same reason as above.
create function private.enforce_shortest_interval() returns trigger
language plpgsql security definer
set search_path = ''
as $$
declare
  plan public.plans;
begin
  select p.* into plan
  from public.organisations o join public.plans p on p.name = o.plan
  where o.id = new.org_id;
  if new.interval_seconds < plan.shortest_interval_seconds then
    raise exception 'interval_below_plan' using errcode = 'PT422',
      detail = format('The plan %s allows intervals of %s seconds or longer.', plan.name, plan.shortest_interval_seconds),
      hint = jsonb_build_object(
        'pointer', '/interval_seconds',
        'quota', jsonb_build_object('name', 'shortest_interval_seconds', 'limit', plan.shortest_interval_seconds)
      )::text;
  end if;
  return null;
end
$$;
create trigger enforce_shortest_interval after insert on public.monitors
  for each row execute function private.enforce_shortest_interval();
create trigger enforce_shortest_changed_interval after update of interval_seconds on public.monitors
  for each row when (new.interval_seconds <> old.interval_seconds) execute function private.enforce_shortest_interval();
revoke execute on function private.enforce_quota(), private.enforce_shortest_interval() from public, anon, authenticated;

-- What organisations of the caller's may have and what they have, as a jsonb array: that of `org_id`, or up to two of
-- them where it is null, so that the caller can be told to choose. Runs as the caller, so that row-level security decides.
create function public.organisation_usage(org_id uuid default null) returns jsonb
language sql stable
set search_path = ''
as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'org_id', o.id,
    'plan', p.name,
    'quotas', jsonb_build_array(
      jsonb_build_object('name', 'monitors', 'limit', p.monitors, 'used', private.count_used(o.id, 'monitors')),
      jsonb_build_object('name', 'members', 'limit', p.members, 'used', private.count_used(o.id, 'members')),
      jsonb_build_object('name', 'channels', 'limit', p.channels, 'used', private.count_used(o.id, 'channels')),
      jsonb_build_object('name', 'api_keys', 'limit', p.api_keys, 'used', private.count_used(o.id, 'api_keys'))
    ),
    'shortest_interval_seconds', p.shortest_interval_seconds,
    'retention_days', p.retention_days
  )), '[]'::jsonb)
  from (
    select o.id, o.plan from public.organisations o where organisation_usage.org_id is null or o.id = organisation_usage.org_id limit 2
  ) o
  join public.plans p on p.name = o.plan
$$;
revoke execute on function public.organisation_usage(uuid) from public, anon;
grant execute on function public.organisation_usage(uuid) to authenticated, anon;

-- The longest retention of any plan that an organisation has; null where there is no organisation.
create function private.longest_retention_days() returns integer
language sql stable
set search_path = ''
as $$
  select max(p.retention_days) from public.plans p where exists (select from public.organisations o where o.plan = p.name)
$$;
revoke execute on function private.longest_retention_days() from public, anon, authenticated;

-- Makes the days ahead, and drops those that no plan keeps any longer; the worker calls it at its start and every hour.
-- `keep_days` is what workers said before there were plans: it decides only where there is no organisation. Answers how
-- many days were dropped.
create or replace function public.maintain_check_results(days_ahead integer, keep_days integer default 30) returns integer
language plpgsql security definer
set search_path = ''
as $$
declare
  today constant date := (now() at time zone 'UTC')::date;
  kept_days constant integer := coalesce(private.longest_retention_days(), keep_days);
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
      and c.relname < 'check_results_' || to_char(today - kept_days, 'YYYYMMDD')
  loop
    execute format('drop table private.%I', expired);
    dropped := dropped + 1;
  end loop;
  return dropped;
end
$$;

-- Up to which day the results of an organisation with a shorter retention have been deleted. So a run looks at the days
-- that have passed since the last one, not at every row that others still keep.
create table private.applied_retentions (
  org_id uuid primary key references public.organisations (id) on delete cascade,
  kept_from date not null
);
alter table private.applied_retentions enable row level security;
revoke all on private.applied_retentions from public, anon, authenticated;

-- Deletes results that have passed the retention of their organisation's plan, where others are kept longer: whole UTC
-- days, one monitor after the other, until `max_rows` are gone (a monitor's day more at most) or a second has passed. The
-- worker calls it every hour, again and again until it is done; of two workers at once one does nothing. Answers
-- {deleted, done}.
create function public.apply_retention(max_rows integer) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  today constant date := (now() at time zone 'UTC')::date;
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
    select o.id as org_id, greatest(a.kept_from, oldest_day) as from_day, today - p.retention_days as keep_from
    from public.organisations o
    join public.plans p on p.name = o.plan
    left join private.applied_retentions a on a.org_id = o.id
    where p.retention_days < longest_days and (a.kept_from is null or a.kept_from < today - p.retention_days)
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
revoke execute on function public.apply_retention(integer) from public, anon, authenticated;
grant execute on function public.apply_retention(integer) to service_role;

-- What: incidents with their evidence, and comments on them.
-- Why:  an incident is what people talk about. It opens and closes in the transaction of the verdict that says so.

create table public.incidents (
  id uuid primary key default gen_random_uuid(),
  org_id uuid not null references public.organisations (id) on delete cascade,
  monitor_id uuid not null references public.monitors (id) on delete cascade,
  state text not null default 'open' constraint incidents_state check (state in ('open', 'acknowledged', 'resolved')),
  cause text not null,
  summary text not null,
  evidence jsonb not null,
  started_at timestamptz not null,
  opened_at timestamptz not null default now(),
  acknowledged_at timestamptz,
  acknowledged_by uuid,
  resolved_at timestamptz,
  resolved_by uuid,
  resolution text
    constraint incidents_resolution check (resolution in ('recovered', 'by_hand', 'monitor_paused', 'monitor_deleted')),
  version integer not null default 1,
  constraint incidents_resolved_whole check (
    (state = 'resolved') = (resolved_at is not null) and (resolved_at is null) = (resolution is null)
  )
);
create index incidents_by_organisation on public.incidents (org_id, opened_at desc, id desc);
create index incidents_by_monitor on public.incidents (monitor_id, opened_at desc, id desc);
create unique index incidents_one_open_per_monitor on public.incidents (monitor_id) where resolved_at is null;

alter table public.incidents enable row level security;
revoke all on public.incidents from anon, authenticated;
grant select on public.incidents to authenticated;
grant update (state) on public.incidents to authenticated;
create policy "members see their organisation's incidents" on public.incidents
  for select to authenticated using (org_id = any (array(select private.my_orgs())));
create policy "editors acknowledge and resolve incidents" on public.incidents
  for update to authenticated using (org_id = any (array(select private.my_orgs('editor'))));

create table public.incident_comments (
  id uuid primary key default gen_random_uuid(),
  org_id uuid not null references public.organisations (id) on delete cascade,
  incident_id uuid not null references public.incidents (id) on delete cascade,
  author_id uuid not null default auth.uid(),
  body text not null constraint incident_comments_body_length check (char_length(body) between 1 and 4000),
  created_at timestamptz not null default now()
);
create index incident_comments_by_incident on public.incident_comments (incident_id, created_at, id);
create index incident_comments_by_organisation on public.incident_comments (org_id);
alter table public.incident_comments enable row level security;
revoke all on public.incident_comments from anon, authenticated;
grant select on public.incident_comments to authenticated;
grant insert (org_id, incident_id, body) on public.incident_comments to authenticated;
create policy "members read comments" on public.incident_comments
  for select to authenticated using (org_id = any (array(select private.my_orgs())));
create policy "editors comment on their organisation's incidents" on public.incident_comments
  for insert to authenticated with check (
    org_id = any (array(select private.my_orgs('editor')))
    and author_id = (select auth.uid())
    and exists (select from public.incidents i where i.id = incident_id and i.org_id = incident_comments.org_id)
  );

-- Stamps who did what when, and lets an incident only move forward. PT409 incident_resolved where it has ended.
create function private.prepare_incident_change() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  if new.state = old.state then
    return new;
  end if;
  if old.state = 'resolved' or new.state = 'open' then
    raise exception 'incident_resolved' using errcode = 'PT409', detail = 'The incident has been resolved already.';
  end if;
  new.version := old.version + 1;
  if new.state = 'acknowledged' then
    new.acknowledged_at := now();
    new.acknowledged_by := (select auth.uid());
  elsif new.resolved_at is null then
    new.resolved_at := now();
    new.resolved_by := (select auth.uid());
    new.resolution := 'by_hand';
  end if;
  return new;
end
$$;
create trigger prepare_change before update on public.incidents
  for each row execute function private.prepare_incident_change();
create trigger append_event after insert or update or delete on public.incidents
  for each row execute function private.append_event('incident');
create trigger append_event after insert or update or delete on public.incident_comments
  for each row execute function private.append_event('incident_comment');

-- Nobody watches a paused or deleted monitor, so its incident cannot stay open: it ends, and says why.
create function private.end_incident_of_unwatched_monitor() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  update public.incidents
  set state = 'resolved', resolved_at = now(), resolved_by = (select auth.uid()),
      resolution = case tg_op when 'DELETE' then 'monitor_deleted' else 'monitor_paused' end
  where monitor_id = old.id and resolved_at is null;
  return case tg_op when 'DELETE' then old else new end;
end
$$;
create trigger end_incident_when_paused after update of paused on public.monitors
  for each row when (new.paused and not old.paused) execute function private.end_incident_of_unwatched_monitor();
create trigger end_incident_when_deleted before delete on public.monitors
  for each row execute function private.end_incident_of_unwatched_monitor();
revoke execute on function private.prepare_incident_change(), private.end_incident_of_unwatched_monitor()
  from public, anon, authenticated;

-- What: channels (where to tell), their secrets, and deliveries: the outbox.
-- Why:  a delivery is written in the transaction of the change it tells of, so nothing that happened is ever untold;
--       it is leased, sent, then acknowledged, under an id that stays the same however often it is sent.

create table public.channels (
  id uuid primary key default gen_random_uuid(),
  org_id uuid not null references public.organisations (id) on delete cascade,
  kind text not null constraint channels_kind check (kind in ('webhook')),
  name text not null constraint channels_name_length check (char_length(name) between 1 and 200),
  url text not null constraint channels_url_length check (char_length(url) between 1 and 2048),
  created_at timestamptz not null default now(),
  version integer not null default 1
);
create index channels_by_organisation on public.channels (org_id, created_at desc, id desc);
alter table public.channels enable row level security;
revoke all on public.channels from anon, authenticated;
grant select, delete on public.channels to authenticated;
create policy "members see their organisation's channels" on public.channels
  for select to authenticated using (org_id = any (array(select private.my_orgs())));
create policy "editors delete channels" on public.channels
  for delete to authenticated using (org_id = any (array(select private.my_orgs('editor'))));
create trigger append_event after insert or update or delete on public.channels
  for each row execute function private.append_event('channel');

-- Signing secrets stand apart from channels, so that no query of a user can reach one.
create table private.channel_secrets (
  channel_id uuid primary key references public.channels (id) on delete cascade,
  secret text not null constraint channel_secrets_form check (secret ~ '^whsec_[A-Za-z0-9+/]{32,86}={0,2}$')
);
alter table private.channel_secrets enable row level security;
revoke all on private.channel_secrets from public, anon, authenticated;

create table public.deliveries (
  id uuid primary key default gen_random_uuid(),
  org_id uuid not null references public.organisations (id) on delete cascade,
  channel_id uuid not null references public.channels (id) on delete cascade,
  incident_id uuid references public.incidents (id) on delete set null,
  type text not null,
  payload jsonb not null,
  state text not null default 'pending' constraint deliveries_state check (state in ('pending', 'delivered', 'dead')),
  attempts integer not null default 0,
  next_attempt_at timestamptz default now(),
  lease_token uuid,
  lease_until timestamptz,
  last_status_code integer,
  last_error text,
  -- Not now(), which is when the transaction began: one that waited for another's incident comes after it.
  created_at timestamptz not null default clock_timestamp(),
  delivered_at timestamptz,
  constraint deliveries_pending_has_a_next_attempt check ((state = 'pending') = (next_attempt_at is not null))
);
create index deliveries_by_organisation on public.deliveries (org_id, created_at desc, id desc);
create index deliveries_by_channel on public.deliveries (channel_id, created_at desc, id desc);
create index deliveries_by_incident on public.deliveries (incident_id, created_at);
create index deliveries_due on public.deliveries (next_attempt_at) where state = 'pending';
alter table public.deliveries enable row level security;
revoke all on public.deliveries from anon, authenticated;
grant select on public.deliveries to authenticated;
create policy "members see what their organisation was told" on public.deliveries
  for select to authenticated using (org_id = any (array(select private.my_orgs())));

-- Creates a webhook channel with its signing secret. PT404 where the caller is no member of the organisation, PT403
-- where a viewer.
create function public.create_channel(org_id uuid, kind text, name text, url text, secret text) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  created public.channels;
begin
  perform private.require_role(create_channel.org_id, 'editor');
  insert into public.channels (org_id, kind, name, url)
  values (create_channel.org_id, create_channel.kind, create_channel.name, create_channel.url)
  returning * into created;
  insert into private.channel_secrets (channel_id, secret) values (created.id, create_channel.secret);
  return to_jsonb(created);
end
$$;

-- Raises unless the caller has at least this role: PT404 for a stranger, PT403 for a member.
create function private.require_role(of_org uuid, minimum_role text) returns void
language plpgsql stable security definer
set search_path = ''
as $$
begin
  if of_org is null or of_org not in (select private.my_orgs()) then
    raise exception 'not_found' using errcode = 'PT404', detail = 'There is nothing here, or nothing that you may see.';
  elsif of_org not in (select private.my_orgs(minimum_role)) then
    raise exception 'forbidden' using errcode = 'PT403', detail = format('This needs the role %s or above.', minimum_role);
  end if;
end
$$;

-- Notes in the event log what somebody did to a delivery: the worker's own writes to it are no events.
create function private.note_delivery_event(delivery public.deliveries, what text) returns void
language sql
set search_path = ''
as $$
  insert into public.events (org_id, actor_kind, actor_id, type, subject_kind, subject_id, after)
  values (delivery.org_id, 'user', (select auth.uid()), 'delivery.' || what, 'delivery', delivery.id,
    to_jsonb(delivery) - 'payload' - 'lease_token' - 'lease_until')
$$;

-- Puts a test message for one channel into the outbox and answers with the delivery.
create function public.test_channel(channel_id uuid) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  channel public.channels;
  created public.deliveries;
  delivery_id constant uuid := gen_random_uuid();
begin
  select * into channel from public.channels c where c.id = test_channel.channel_id;
  perform private.require_role(channel.org_id, 'editor');
  insert into public.deliveries (id, org_id, channel_id, type, payload)
  values (delivery_id, channel.org_id, channel.id, 'channel.test', jsonb_build_object(
    'id', delivery_id,
    'type', 'channel.test',
    'created_at', private.rfc3339(now()),
    'organisation', (select jsonb_build_object('id', o.id, 'name', o.name) from public.organisations o where o.id = channel.org_id),
    'channel', jsonb_build_object('id', channel.id, 'name', channel.name)
  ))
  returning * into created;
  perform private.note_delivery_event(created, 'created');
  return to_jsonb(created);
end
$$;

-- Sends a delivery once more: a dead one comes back to life, a pending one is due at once, a delivered one is sent
-- again under its old id. The count of attempts starts afresh.
create function public.retry_delivery(delivery_id uuid) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  retried public.deliveries;
begin
  select * into retried from public.deliveries d where d.id = retry_delivery.delivery_id for update;
  perform private.require_role(retried.org_id, 'editor');
  update public.deliveries
  set state = 'pending', attempts = 0, next_attempt_at = now(), delivered_at = null
  where id = retried.id
  returning * into retried;
  perform private.note_delivery_event(retried, 'retried');
  return to_jsonb(retried);
end
$$;

revoke execute on function public.create_channel(uuid, text, text, text, text), public.test_channel(uuid),
  public.retry_delivery(uuid) from public, anon;
grant execute on function public.create_channel(uuid, text, text, text, text), public.test_channel(uuid),
  public.retry_delivery(uuid) to authenticated;
revoke execute on function private.require_role(uuid, text), private.note_delivery_event(public.deliveries, text)
  from public, anon, authenticated;

-- What a receiver is told of an incident. Whole in itself: whoever gets it needs no second request.
create function private.incident_payload(
  delivery_id uuid, message_type text, incident public.incidents, monitor public.monitors, organisation public.organisations
) returns jsonb
language sql stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', delivery_id,
    'type', message_type,
    'created_at', private.rfc3339(now()),
    'organisation', jsonb_build_object('id', organisation.id, 'name', organisation.name),
    'monitor', jsonb_build_object('id', monitor.id, 'name', monitor.name, 'kind', monitor.kind, 'target', monitor.target),
    'incident', jsonb_build_object(
      'id', incident.id,
      'state', incident.state,
      'cause', incident.cause,
      'summary', incident.summary,
      'started_at', private.rfc3339(incident.started_at),
      'opened_at', private.rfc3339(incident.opened_at),
      'acknowledged_at', private.rfc3339(incident.acknowledged_at),
      'resolved_at', private.rfc3339(incident.resolved_at),
      'resolution', incident.resolution,
      'evidence', incident.evidence
    )
  )
$$;

-- Tells every channel of the organisation, in the transaction of the change. Where the organisation itself is being
-- deleted there is nobody left to tell.
create function private.tell_of_incident() returns trigger
language plpgsql security definer
set search_path = ''
as $$
declare
  message_type constant text := 'incident.' || case when new.state = 'open' then 'opened' else new.state end;
begin
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
create trigger tell_when_opened after insert on public.incidents
  for each row execute function private.tell_of_incident();
create trigger tell_when_changed after update of state on public.incidents
  for each row when (new.state is distinct from old.state) execute function private.tell_of_incident();
revoke execute on function
  private.incident_payload(uuid, text, public.incidents, public.monitors, public.organisations),
  private.tell_of_incident() from public, anon, authenticated;

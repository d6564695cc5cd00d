-- What: what API keys reach of what migrations 10 to 15 brought, and the quota on keys themselves.
-- Why:  each of those files stands by itself and speaks of people alone.

grant select on public.plans to anon;
alter policy "everybody sees what plans there are" on public.plans to authenticated, anon;
grant execute on function private.count_used(uuid, text), public.organisation_usage(uuid) to anon;
grant execute on function public.list_members(uuid, timestamptz, uuid, integer), public.read_member(uuid, uuid),
  public.update_organisation(uuid, jsonb, integer) to anon;
grant execute on function public.audit_page(uuid, uuid, text, uuid, text, timestamptz, timestamptz, timestamptz, bigint,
  text, integer) to anon;
grant execute on function private.require_position(xid8, bigint, xid8), private.position_document(xid8, bigint),
  private.event_horizon_document(), private.event_document(public.events),
  public.read_events(text, bigint, integer, uuid) to anon;
grant select on public.named_monitors, public.named_channels to anon;
grant execute on function private.name_key(text), private.last_observations(uuid), private.spent_in_states(uuid, timestamptz),
  public.list_checks(uuid, boolean, timestamptz, uuid, text, timestamptz, timestamptz, integer), public.overview(uuid) to anon;

-- As before, with keys that stand; one that was rotated gives its place to its successor. With its owner's rights, since
-- keys are hidden from most members: it is asked by triggers, and of organisations that the caller sees.
create or replace function private.count_used(of_org uuid, quota text) returns integer
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
-- As before, with the second factor where the organisation demands one.
create or replace function private.require_person_as(of_org uuid, minimum_role text) returns void
language plpgsql stable security definer
set search_path = ''
as $$
begin
  perform private.require_role(of_org, minimum_role);
  if (select auth.uid()) is null then
    raise exception 'users_only' using errcode = 'PT403', detail = 'This needs a signed-in person, not an API key.';
  end if;
  perform private.require_assurance(of_org);
end
$$;

create trigger enforce_quota after insert on public.api_keys
  referencing new table as added_rows for each statement execute function private.enforce_quota('api_keys');

-- As before, with keys.
create or replace function public.organisation_usage(org_id uuid default null) returns jsonb
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
    select o.id, o.plan
    from public.organisations o
    where organisation_usage.org_id is null or o.id = organisation_usage.org_id
    limit 2
  ) o
  join public.plans p on p.name = o.plan
$$;

-- What: what API keys reach of what migrations 10 to 15 brought, and the quota on keys themselves.
-- Why:  each of those files stands by itself and speaks of people alone.

grant select on public.plans to anon;
alter policy "everybody sees what plans there are" on public.plans to authenticated, anon;
grant execute on function private.count_used(uuid, text), public.organisation_usage(uuid) to anon;

-- As before, with keys that stand.
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
      where k.org_id = of_org and k.revoked_at is null and (k.expires_at is null or k.expires_at > now())
    )
  end::integer
  where private.my_role_in(of_org) is not null
$$;

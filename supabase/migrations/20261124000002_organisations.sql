-- What: organisations and their members, and the two functions that every policy asks.
-- Why:  an organisation is the unit of isolation. Policies compare org_id with an array that Postgres computes once a
--       statement (an initplan) and looks up in the index. Written `org_id in (select …)` the same policy walks through
--       everybody's rows: 76 ms instead of 0.4 for a page of 50 monitors among 100,000.

create table public.organisations (
  id uuid primary key default gen_random_uuid(),
  name text not null constraint organisations_name_length check (char_length(name) between 1 and 100),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  version integer not null default 1
);

create table public.memberships (
  org_id uuid not null references public.organisations (id) on delete cascade,
  user_id uuid not null references auth.users (id) on delete cascade,
  role text not null constraint memberships_role check (role in ('owner', 'admin', 'editor', 'viewer')),
  created_at timestamptz not null default now(),
  primary key (org_id, user_id)
);
create index memberships_by_user on public.memberships (user_id, org_id);

-- The organisations in which the caller has at least this role.
create function private.my_orgs(minimum_role text default 'viewer') returns setof uuid
language sql stable security definer
set search_path = ''
as $$
  select org_id
  from public.memberships
  where user_id = (select auth.uid())
    and private.role_rank(role) >= private.role_rank(minimum_role)
$$;
revoke execute on function private.my_orgs(text) from public, anon;
grant execute on function private.my_orgs(text) to authenticated, service_role;
revoke execute on function private.role_rank(text) from public, anon;
grant execute on function private.role_rank(text) to authenticated, service_role;

-- A computed column (PostgREST: select=...organisations(my_role)): what the caller is in this organisation.
create function public.my_role(organisation public.organisations) returns text
language sql stable
set search_path = ''
as $$
  select role from public.memberships where org_id = organisation.id and user_id = (select auth.uid())
$$;
revoke execute on function public.my_role(public.organisations) from public, anon;
grant execute on function public.my_role(public.organisations) to authenticated, service_role;

alter table public.organisations enable row level security;
alter table public.memberships enable row level security;
revoke all on public.organisations, public.memberships from anon, authenticated;
grant select on public.organisations, public.memberships to authenticated;
grant update (name) on public.organisations to authenticated;

create policy "members see their organisations" on public.organisations
  for select to authenticated using (id = any (array(select private.my_orgs())));
create policy "admins rename their organisation" on public.organisations
  for update to authenticated using (id = any (array(select private.my_orgs('admin'))));
create policy "members see who else is in their organisations" on public.memberships
  for select to authenticated using (org_id = any (array(select private.my_orgs())));
create policy "members read what happened in their organisations" on public.events
  for select to authenticated using (org_id = any (array(select private.my_orgs())));

create function private.bump_organisation_version() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  new.version := old.version + 1;
  new.updated_at := now();
  return new;
end
$$;
revoke execute on function private.bump_organisation_version() from public, anon, authenticated;
create trigger bump_version before update on public.organisations
  for each row execute function private.bump_organisation_version();
create trigger append_event after insert or update or delete on public.organisations
  for each row execute function private.append_event('organisation');
create trigger append_event after insert or update or delete on public.memberships
  for each row execute function private.append_event('membership');

-- Creates an organisation and makes the caller its owner: two rows or none, which no pair of REST calls can promise.
-- PT403 anonymous_users_create_nothing where the session is anonymous.
create function public.create_organisation(name text) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  created public.organisations;
begin
  if coalesce((auth.jwt() ->> 'is_anonymous')::boolean, false) then
    raise exception 'anonymous_users_create_nothing' using errcode = 'PT403',
      detail = 'Anonymous users cannot create organisations. Add an e-mail address to the account first.';
  end if;
  insert into public.organisations (name) values (create_organisation.name) returning * into created;
  insert into public.memberships (org_id, user_id, role) values (created.id, (select auth.uid()), 'owner');
  return to_jsonb(created) || jsonb_build_object('my_role', 'owner');
end
$$;
revoke execute on function public.create_organisation(text) from public, anon;
grant execute on function public.create_organisation(text) to authenticated;

-- Renames an organisation and answers with it, null where nothing was renamed: it is none of the caller's to rename, or
-- has moved past `expected_version`. Runs as the caller, so that row-level security decides. A function, because a plain
-- update cannot answer with a computed column everywhere (the embedded Supabase does not know them there).
create function public.rename_organisation(org_id uuid, name text, expected_version integer default null) returns jsonb
language sql
set search_path = ''
as $$
  update public.organisations o
  set name = rename_organisation.name
  where o.id = rename_organisation.org_id and (expected_version is null or o.version = expected_version)
  returning to_jsonb(o) || jsonb_build_object('my_role', public.my_role(o))
$$;
revoke execute on function public.rename_organisation(uuid, text, integer) from public, anon;
grant execute on function public.rename_organisation(uuid, text, integer) to authenticated;

-- Deletes an organisation and all that is in it. PT404 where the caller is no member, PT403 where not its owner,
-- PT412 where `expected_version` is given and has passed.
create function public.delete_organisation(org_id uuid, expected_version integer default null) returns void
language plpgsql security definer
set search_path = ''
as $$
declare
  caller_role text;
  current_version integer;
begin
  select m.role, o.version into caller_role, current_version
  from public.memberships m join public.organisations o on o.id = m.org_id
  where m.org_id = delete_organisation.org_id and m.user_id = (select auth.uid())
  for update of o;
  if caller_role is null then
    raise exception 'not_found' using errcode = 'PT404', detail = 'No such organisation.';
  elsif caller_role <> 'owner' then
    raise exception 'forbidden' using errcode = 'PT403', detail = 'Only an owner can delete an organisation.';
  elsif current_version <> expected_version then
    raise exception 'precondition_failed' using errcode = 'PT412', detail = 'The organisation has changed since it was read.';
  end if;
  delete from public.organisations where id = delete_organisation.org_id;
end
$$;
revoke execute on function public.delete_organisation(uuid, integer) from public, anon;
grant execute on function public.delete_organisation(uuid, integer) to authenticated;

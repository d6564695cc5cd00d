-- What: invitations, changes of members, leaving, transfer of ownership, and the assurance that an organisation may demand.
-- Why:  who belongs to an organisation decides what everybody else may see, so every change of it is one function that
--       checks and writes under the organisation's lock. No role may write memberships or invitations in any other way.

-- --- assurance -------------------------------------------------------------------------------------------------------

alter table public.organisations add column require_aal2 boolean not null default false;

-- Raises PT403 aal2_required where the organisation demands a second factor and the caller's session has shown none. A
-- caller without the claim `aal` has shown none.
create function private.require_assurance(of_org uuid) returns void
language plpgsql stable security definer
set search_path = ''
as $$
begin
  if coalesce(auth.jwt() ->> 'aal', 'aal1') not in ('aal2', 'aal3')
    and exists (select from public.organisations o where o.id = of_org and o.require_aal2)
  then
    raise exception 'aal2_required' using errcode = 'PT403',
      detail = 'This organisation demands a second factor here. Verify one with Supabase Auth, then try again.';
  end if;
end
$$;

-- Raises PT403 where the caller's session is anonymous: such users create nothing.
create function private.require_account() returns void
language plpgsql stable
set search_path = ''
as $$
begin
  if (select auth.uid()) is null or coalesce((auth.jwt() ->> 'is_anonymous')::boolean, false) then
    raise exception 'anonymous_users_create_nothing' using errcode = 'PT403',
      detail = 'Anonymous users cannot do this. Add an e-mail address to the account first.';
  end if;
end
$$;

-- Raises unless the caller may give, change or take away these roles: admins up to admin, owners every one; and where
-- an owner is made or unmade, with the assurance that the organisation demands.
create function private.require_say_over(of_org uuid, roles text[]) returns void
language plpgsql stable security definer
set search_path = ''
as $$
begin
  perform private.require_role(of_org, 'admin');
  if 'owner' = any (roles) then
    if of_org not in (select private.my_orgs('owner')) then
      raise exception 'forbidden' using errcode = 'PT403',
        detail = 'Only an owner invites, makes and unmakes owners, and hands the organisation on.';
    end if;
    perform private.require_assurance(of_org);
  end if;
end
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

-- Lets changes of one organisation's people happen one after the other. Members alone may hold others up: a stranger
-- is refused before. `no key`: whoever inserts a monitor meanwhile need not wait.
create function private.lock_people(of_org uuid) returns void
language plpgsql security definer
set search_path = ''
as $$
begin
  perform private.require_role(of_org, 'viewer');
  perform from public.organisations o where o.id = of_org for no key update;
end
$$;

-- --- members ---------------------------------------------------------------------------------------------------------

alter table public.memberships add column version integer not null default 1;
create index memberships_by_organisation on public.memberships (org_id, created_at desc, user_id desc);

create function private.bump_membership_version() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  new.version := old.version + 1;
  return new;
end
$$;
create trigger bump_version before update on public.memberships
  for each row execute function private.bump_membership_version();

-- A member as others see them. The address comes from Auth's users, which no role of PostgREST may read: this function
-- and those that call it are the only way to it, and they show members of the caller's organisations alone.
create function private.describe_member(membership public.memberships) returns jsonb
language sql stable security definer
set search_path = ''
as $$
  select jsonb_build_object(
    'org_id', membership.org_id, 'user_id', membership.user_id, 'email', u.email, 'role', membership.role,
    'joined_at', membership.created_at, 'version', membership.version
  )
  from auth.users u where u.id = membership.user_id
$$;

-- A page of members, newest first, as an array. PT404 where the caller is no member.
create function public.list_members(org_id uuid, before_at timestamptz, before_id uuid, max_rows integer) returns jsonb
language plpgsql stable security definer
set search_path = ''
as $$
begin
  perform private.require_role(list_members.org_id, 'viewer');
  return coalesce((
    select jsonb_agg(private.describe_member(page.m) order by (page.m).created_at desc, (page.m).user_id desc)
    from (
      select m from public.memberships m
      where m.org_id = list_members.org_id
        and (before_at is null or (m.created_at, m.user_id) < (before_at, before_id))
      order by m.created_at desc, m.user_id desc
      limit least(max_rows, 1000)
    ) page
  ), '[]'::jsonb);
end
$$;

-- One member. PT404 where the caller is none, or the other is none.
create function public.read_member(org_id uuid, user_id uuid) returns jsonb
language plpgsql stable security definer
set search_path = ''
as $$
declare
  found_member public.memberships;
begin
  perform private.require_role(read_member.org_id, 'viewer');
  select * into found_member from public.memberships m
  where m.org_id = read_member.org_id and m.user_id = read_member.user_id;
  if found_member.user_id is null then
    raise exception 'not_found' using errcode = 'PT404', detail = 'There is nothing here, or nothing that you may see.';
  end if;
  return private.describe_member(found_member);
end
$$;

-- The member's row, locked. PT404 where there is none, PT412 where `expected_version` is given and has passed.
create function private.lock_membership(of_org uuid, of_user uuid, expected_version integer) returns public.memberships
language plpgsql
set search_path = ''
as $$
declare
  held public.memberships;
begin
  select * into held from public.memberships m where m.org_id = of_org and m.user_id = of_user for update;
  if held.user_id is null then
    raise exception 'not_found' using errcode = 'PT404', detail = 'There is nothing here, or nothing that you may see.';
  elsif held.version <> expected_version then
    raise exception 'precondition_failed' using errcode = 'PT412', detail = 'The member has changed since it was read.';
  end if;
  return held;
end
$$;

-- Raises PT409 last_owner where nobody else owns the organisation. Means something under the organisation's lock alone.
create function private.require_another_owner(of_org uuid, than_user uuid) returns void
language plpgsql
set search_path = ''
as $$
begin
  if not exists (
    select from public.memberships m where m.org_id = of_org and m.role = 'owner' and m.user_id <> than_user
  ) then
    raise exception 'last_owner' using errcode = 'PT409',
      detail = 'An organisation keeps an owner. Make somebody else owner first, or delete the organisation.';
  end if;
end
$$;

-- Changes what a member is. PT404, PT403, PT412, PT409 last_owner.
create function public.change_member_role(
  org_id uuid, user_id uuid, role text, expected_version integer default null
) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  changed public.memberships;
begin
  perform private.lock_people(change_member_role.org_id);
  changed := private.lock_membership(change_member_role.org_id, change_member_role.user_id, expected_version);
  perform private.require_say_over(change_member_role.org_id, array[changed.role, change_member_role.role]);
  if changed.role = 'owner' and change_member_role.role <> 'owner' then
    perform private.require_another_owner(changed.org_id, changed.user_id);
  end if;
  update public.memberships m set role = change_member_role.role
  where m.org_id = changed.org_id and m.user_id = changed.user_id
  returning * into changed;
  return private.describe_member(changed);
end
$$;

-- Ends a membership, one's own or another's. Nobody needs a role for leaving; an owner who leaves unmakes an owner.
create function private.end_membership(of_org uuid, of_user uuid, expected_version integer) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  ended public.memberships;
begin
  perform private.lock_people(of_org);
  ended := private.lock_membership(of_org, of_user, expected_version);
  if of_user is distinct from (select auth.uid()) then
    perform private.require_say_over(of_org, array[ended.role]);
  elsif ended.role = 'owner' then
    perform private.require_assurance(of_org);
  end if;
  if ended.role = 'owner' then
    perform private.require_another_owner(of_org, of_user);
  end if;
  delete from public.memberships m where m.org_id = of_org and m.user_id = of_user;
  return jsonb_build_object('org_id', ended.org_id, 'user_id', ended.user_id, 'role', ended.role);
end
$$;

-- Removes a member; oneself means leaving. PT404, PT403, PT412, PT409 last_owner.
create function public.remove_member(org_id uuid, user_id uuid, expected_version integer default null) returns jsonb
language sql security definer
set search_path = ''
as $$
  select private.end_membership(org_id, user_id, expected_version)
$$;

-- Ends the caller's own membership. PT404, PT409 last_owner.
create function public.leave_organisation(org_id uuid) returns jsonb
language sql security definer
set search_path = ''
as $$
  select private.end_membership(org_id, (select auth.uid()), null)
$$;

-- Hands the caller's ownership to another member, and makes the caller an admin: both or neither. Answers with the
-- organisation. PT404, PT403, PT422 member_not_found, PT409 already_owner.
create function public.transfer_organisation(org_id uuid, user_id uuid) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  heir public.memberships;
begin
  perform private.lock_people(transfer_organisation.org_id);
  perform private.require_account();
  perform private.require_say_over(transfer_organisation.org_id, array['owner']);
  select * into heir from public.memberships m
  where m.org_id = transfer_organisation.org_id and m.user_id = transfer_organisation.user_id
  for update;
  if heir.user_id is null then
    raise exception 'member_not_found' using errcode = 'PT422', detail = 'The organisation has no member with this id.';
  elsif heir.role = 'owner' then
    raise exception 'already_owner' using errcode = 'PT409', detail = 'This member owns the organisation already.';
  end if;
  update public.memberships m set role = 'owner' where m.org_id = heir.org_id and m.user_id = heir.user_id;
  update public.memberships m set role = 'admin' where m.org_id = heir.org_id and m.user_id = (select auth.uid());
  return (
    select to_jsonb(o) || jsonb_build_object('my_role', 'admin') from public.organisations o where o.id = heir.org_id
  );
end
$$;

-- A user may be deleted in Supabase Auth at any time, the last owner too, and nothing here may stand in the way. The
-- admin who has been a member for longest then becomes owner. Without an admin the organisation waits for an operator
-- (docs/decisions.md): an editor or viewer must not wake up as owner.
create function private.keep_an_owner() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  perform from public.organisations o where o.id = old.org_id for no key update;
  if not found then
    return null;
  end if;
  if not exists (select from public.memberships m where m.org_id = old.org_id and m.role = 'owner') then
    update public.memberships m set role = 'owner'
    where (m.org_id, m.user_id) = (
      select a.org_id, a.user_id from public.memberships a
      where a.org_id = old.org_id and a.role = 'admin'
      order by a.created_at, a.user_id
      limit 1
    );
  end if;
  return null;
end
$$;
create trigger keep_an_owner after delete on public.memberships
  for each row when (old.role = 'owner') execute function private.keep_an_owner();

-- --- invitations -----------------------------------------------------------------------------------------------------

-- Accepted and revoked ones stay, so that an old link is answered with what became of it. The token itself is nowhere:
-- 256 random bits, of which the SHA-256 is kept, in hexadecimal.
create table public.invitations (
  id uuid primary key default gen_random_uuid(),
  org_id uuid not null references public.organisations (id) on delete cascade,
  email text not null
    constraint invitations_email_form check (char_length(email) <= 254 and email ~ '^[^@\s]+@[^@\s]+$'),
  role text not null constraint invitations_role check (role in ('owner', 'admin', 'editor', 'viewer')),
  state text not null default 'open' constraint invitations_state check (state in ('open', 'accepted', 'revoked')),
  token_hash text not null constraint invitations_token_hash_form check (token_hash ~ '^[0-9a-f]{64}$'),
  invited_by uuid not null,
  accepted_by uuid,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null default now() + interval '7 days',
  version integer not null default 1,
  constraint invitations_accepted_whole check ((state = 'accepted') = (accepted_by is not null))
);
create index invitations_by_organisation on public.invitations (org_id, created_at desc, id desc);
create unique index invitations_token_hash on public.invitations (token_hash);
create unique index invitations_one_open_per_address on public.invitations (org_id, lower(email)) where state = 'open';

alter table public.invitations enable row level security;
revoke all on public.invitations from anon, authenticated;
grant select (id, org_id, email, role, state, invited_by, accepted_by, created_at, expires_at, version)
  on public.invitations to authenticated;
create policy "admins see whom their organisation invites" on public.invitations
  for select to authenticated using (org_id = any (array(select private.my_orgs('admin'))));
create trigger append_event after insert or update or delete on public.invitations
  for each row execute function private.append_event('invitation');

-- An invitation as admins see it.
create function private.describe_invitation(invitation public.invitations) returns jsonb
language sql stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', invitation.id, 'org_id', invitation.org_id, 'email', invitation.email, 'role', invitation.role,
    'invited_by', invitation.invited_by, 'created_at', invitation.created_at, 'expires_at', invitation.expires_at,
    'version', invitation.version
  )
$$;

-- A page of the invitations that are still open, newest first, as an array. PT404, PT403.
create function public.list_invitations(org_id uuid, before_at timestamptz, before_id uuid, max_rows integer) returns jsonb
language plpgsql stable security definer
set search_path = ''
as $$
begin
  perform private.require_role(list_invitations.org_id, 'admin');
  return coalesce((
    select jsonb_agg(private.describe_invitation(page.i) order by (page.i).created_at desc, (page.i).id desc)
    from (
      select i from public.invitations i
      where i.org_id = list_invitations.org_id and i.state = 'open'
        and (before_at is null or (i.created_at, i.id) < (before_at, before_id))
      order by i.created_at desc, i.id desc
      limit least(max_rows, 1000)
    ) page
  ), '[]'::jsonb);
end
$$;

-- Invites an address. PT404, PT403, PT409 already_member, already_invited. An open invitation is not replaced, even
-- where it has expired: sending it again is what the caller wants, and says so.
create function public.create_invitation(org_id uuid, email text, role text, token_hash text) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  known_id uuid;
  created public.invitations;
begin
  perform private.lock_people(create_invitation.org_id);
  perform private.require_account();
  perform private.require_say_over(create_invitation.org_id, array[create_invitation.role]);
  if exists (
    select from public.memberships m join auth.users u on u.id = m.user_id
    where m.org_id = create_invitation.org_id and lower(u.email) = lower(create_invitation.email)
  ) then
    raise exception 'already_member' using errcode = 'PT409', detail = 'This address belongs to a member already.';
  end if;
  select i.id into known_id from public.invitations i
  where i.org_id = create_invitation.org_id and lower(i.email) = lower(create_invitation.email) and i.state = 'open';
  if known_id is not null then
    raise exception 'already_invited' using errcode = 'PT409', detail = format(
      'This address is invited already. Send it again: POST /v1/orgs/%s/invitations/%s/resend. Revoke it for another role.',
      create_invitation.org_id, known_id);
  end if;
  insert into public.invitations (org_id, email, role, token_hash, invited_by)
  values (create_invitation.org_id, create_invitation.email, create_invitation.role, create_invitation.token_hash,
    (select auth.uid()))
  returning * into created;
  return private.describe_invitation(created);
end
$$;

-- The invitation's row, locked, for somebody with a say over its role. PT404, PT403, PT409 invitation_used, PT412.
create function private.lock_invitation(of_org uuid, of_id uuid, expected_version integer) returns public.invitations
language plpgsql
set search_path = ''
as $$
declare
  held public.invitations;
begin
  perform private.lock_people(of_org);
  perform private.require_role(of_org, 'admin');
  select * into held from public.invitations i where i.id = of_id and i.org_id = of_org for update;
  if held.id is null or held.state = 'revoked' then
    raise exception 'not_found' using errcode = 'PT404', detail = 'There is nothing here, or nothing that you may see.';
  end if;
  perform private.require_say_over(of_org, array[held.role]);
  if held.state = 'accepted' then
    raise exception 'invitation_used' using errcode = 'PT409', detail = 'The invitation has been accepted already.';
  elsif held.version <> expected_version then
    raise exception 'precondition_failed' using errcode = 'PT412', detail = 'The invitation has changed since it was read.';
  end if;
  return held;
end
$$;

-- Gives an open invitation another token and seven days more. The link before it is dead. Whoever sends it again
-- stands for it from now on.
create function public.resend_invitation(org_id uuid, invitation_id uuid, token_hash text) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  held public.invitations;
begin
  perform private.require_account();
  held := private.lock_invitation(resend_invitation.org_id, invitation_id, null);
  update public.invitations i
  set token_hash = resend_invitation.token_hash, expires_at = now() + interval '7 days',
      invited_by = (select auth.uid()), version = i.version + 1
  where i.id = held.id
  returning * into held;
  return private.describe_invitation(held);
end
$$;

-- Takes an open invitation back. PT404, PT403, PT409 invitation_used, PT412.
create function public.revoke_invitation(org_id uuid, invitation_id uuid, expected_version integer default null)
returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  held public.invitations;
begin
  held := private.lock_invitation(revoke_invitation.org_id, invitation_id, expected_version);
  update public.invitations i set state = 'revoked', version = i.version + 1 where i.id = held.id returning * into held;
  return private.describe_invitation(held);
end
$$;

-- Makes the caller a member by an invitation's token.
-- 1. The token finds the invitation, or nothing: PT404. 2. The caller's address, as Auth has verified it and as it
-- stands now, is the invited one: PT403. Whoever holds a stolen link learns up to here that it is meant for another
-- address, and neither which, nor whose organisation, nor whether it still works. 3. Under the organisation's lock: it
-- has not been accepted (PT409 invitation_used), revoked or expired (PT410), and the caller is no member yet (PT409).
-- The token comes in plain and is hashed here, so that whoever reads the table can accept nothing with what it holds.
create function public.accept_invitation(token text) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  caller constant uuid := (select auth.uid());
  hash constant text := encode(sha256(convert_to(token, 'UTF8')), 'hex');
  verified_email text;
  held public.invitations;
begin
  perform private.require_account();
  select * into held from public.invitations i where i.token_hash = hash;
  if held.id is null then
    raise exception 'invitation_not_found' using errcode = 'PT404',
      detail = 'There is no such invitation. It may have been sent again: use the latest link.';
  end if;
  select lower(u.email) into verified_email from auth.users u where u.id = caller and u.email_confirmed_at is not null;
  if verified_email is null then
    raise exception 'email_not_verified' using errcode = 'PT403',
      detail = 'Verify the e-mail address of your account with Supabase Auth first.';
  elsif verified_email <> lower(held.email) then
    raise exception 'invitation_for_another_address' using errcode = 'PT403',
      detail = 'This invitation is for another e-mail address. Sign in with the address that it was sent to.';
  end if;

  perform from public.organisations o where o.id = held.org_id for no key update;
  select * into held from public.invitations i where i.token_hash = hash for update;
  if held.id is null then
    raise exception 'invitation_not_found' using errcode = 'PT404',
      detail = 'There is no such invitation. It may have been sent again: use the latest link.';
  elsif held.state = 'accepted' then
    raise exception 'invitation_used' using errcode = 'PT409', detail = 'This invitation has been accepted already.';
  elsif held.state = 'revoked' then
    raise exception 'invitation_revoked' using errcode = 'PT410', detail = 'This invitation was taken back.';
  elsif held.expires_at <= now() then
    raise exception 'invitation_expired' using errcode = 'PT410',
      detail = 'This invitation has expired. Ask for it to be sent again.';
  elsif exists (select from public.memberships m where m.org_id = held.org_id and m.user_id = caller) then
    raise exception 'already_member' using errcode = 'PT409', detail = 'You belong to this organisation already.';
  end if;
  insert into public.memberships (org_id, user_id, role) values (held.org_id, caller, held.role);
  update public.invitations i set state = 'accepted', accepted_by = caller, version = i.version + 1 where i.id = held.id;
  return (
    select jsonb_build_object('org_id', o.id, 'org_name', o.name, 'role', held.role)
    from public.organisations o where o.id = held.org_id
  );
end
$$;

-- An invitation is as good as who stands behind it: when they are removed, leave or are demoted, those that they could
-- not make any more are taken back. So a link that was prepared in time lets nobody back in.
create function private.revoke_unbacked_invitations() returns trigger
language plpgsql security definer
set search_path = ''
as $$
declare
  role_now constant text := case tg_op when 'UPDATE' then new.role end;
begin
  update public.invitations i set state = 'revoked', version = i.version + 1
  where i.org_id = old.org_id and i.invited_by = old.user_id and i.state = 'open'
    and (coalesce(role_now, '') not in ('owner', 'admin') or (role_now = 'admin' and i.role = 'owner'))
    and exists (select from public.organisations o where o.id = old.org_id);
  return null;
end
$$;
create trigger revoke_unbacked_invitations after delete or update of role on public.memberships
  for each row execute function private.revoke_unbacked_invitations();

-- --- the organisation itself -----------------------------------------------------------------------------------------

-- Renaming was all that could be changed; now it is one change among others.
drop function public.rename_organisation(uuid, text, integer);

-- Changes an organisation by a merge patch of {name, require_aal2} and answers with it. Admins rename; owners, with a
-- second factor shown, say whether the organisation demands one. PT404, PT403, PT412.
create function public.update_organisation(org_id uuid, changes jsonb, expected_version integer default null) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  changed public.organisations;
  demands_aal2 constant boolean := (changes ->> 'require_aal2')::boolean;
begin
  perform private.require_role(update_organisation.org_id, 'admin');
  select * into changed from public.organisations o where o.id = update_organisation.org_id for no key update;
  if changed.version <> expected_version then
    raise exception 'precondition_failed' using errcode = 'PT412', detail = 'The organisation has changed since it was read.';
  end if;
  if demands_aal2 <> changed.require_aal2 then
    perform private.require_role(update_organisation.org_id, 'owner');
    if coalesce(auth.jwt() ->> 'aal', 'aal1') not in ('aal2', 'aal3') then
      raise exception 'aal2_required' using errcode = 'PT403',
        detail = 'Changing require_aal2 needs a session with a second factor. Verify one with Supabase Auth first.';
    end if;
  end if;
  update public.organisations o
  set name = coalesce(changes ->> 'name', o.name), require_aal2 = coalesce(demands_aal2, o.require_aal2)
  where o.id = update_organisation.org_id
  returning * into changed;
  return to_jsonb(changed) || jsonb_build_object('my_role', public.my_role(changed));
end
$$;

-- As before, and with the assurance that the organisation demands.
create or replace function public.delete_organisation(org_id uuid, expected_version integer default null) returns void
language plpgsql security definer
set search_path = ''
as $$
declare
  current_version integer;
begin
  perform private.require_role(delete_organisation.org_id, 'viewer');
  select o.version into current_version from public.organisations o where o.id = delete_organisation.org_id for update;
  perform private.require_role(delete_organisation.org_id, 'owner');
  perform private.require_assurance(delete_organisation.org_id);
  if current_version <> expected_version then
    raise exception 'precondition_failed' using errcode = 'PT412', detail = 'The organisation has changed since it was read.';
  end if;
  delete from public.organisations where id = delete_organisation.org_id;
end
$$;

revoke execute on function
  private.require_assurance(uuid), private.require_account(), private.require_say_over(uuid, text[]),
  private.lock_people(uuid), private.bump_membership_version(), private.describe_member(public.memberships),
  private.lock_membership(uuid, uuid, integer), private.require_another_owner(uuid, uuid),
  private.end_membership(uuid, uuid, integer), private.keep_an_owner(),
  private.describe_invitation(public.invitations), private.lock_invitation(uuid, uuid, integer),
  private.revoke_unbacked_invitations()
  from public, anon, authenticated;
revoke execute on function
  public.list_members(uuid, timestamptz, uuid, integer), public.read_member(uuid, uuid),
  public.change_member_role(uuid, uuid, text, integer), public.remove_member(uuid, uuid, integer),
  public.leave_organisation(uuid), public.transfer_organisation(uuid, uuid),
  public.list_invitations(uuid, timestamptz, uuid, integer), public.create_invitation(uuid, text, text, text),
  public.resend_invitation(uuid, uuid, text), public.revoke_invitation(uuid, uuid, integer),
  public.accept_invitation(text), public.update_organisation(uuid, jsonb, integer)
  from public, anon;
grant execute on function
  public.list_members(uuid, timestamptz, uuid, integer), public.read_member(uuid, uuid),
  public.change_member_role(uuid, uuid, text, integer), public.remove_member(uuid, uuid, integer),
  public.leave_organisation(uuid), public.transfer_organisation(uuid, uuid),
  public.list_invitations(uuid, timestamptz, uuid, integer), public.create_invitation(uuid, text, text, text),
  public.resend_invitation(uuid, uuid, text), public.revoke_invitation(uuid, uuid, integer),
  public.accept_invitation(text), public.update_organisation(uuid, jsonb, integer)
  to authenticated;
grant execute on function
  public.list_members(uuid, timestamptz, uuid, integer), public.read_member(uuid, uuid),
  public.update_organisation(uuid, jsonb, integer)
  to anon;

-- What: each event is also broadcast over Supabase Realtime, where the project has it: on the private channel
--       `org:<organisation's id>`, what only admins may see on `org:<organisation's id>:admins`.
-- Why:  a page that has supabase-js open already can subscribe without a stream of ours. What is broadcast says that
--       something happened and to what, not what it looked like: the reader asks the API. A broadcast may get lost, and
--       is no substitute for the log; so a failure to broadcast never fails the write that it tells of.
--       The embedded stack has no Realtime, and neither has a bare Postgres: then this migration does nothing. Whoever
--       adds Realtime later runs it once more by hand; it may be run again.
-- realtime.send(payload jsonb, event text, topic text, private boolean) and realtime.topic() are Supabase's own:
-- https://supabase.com/docs/guides/realtime/broadcast, https://supabase.com/docs/guides/realtime/authorization

do $guard$
begin
  if to_regprocedure('realtime.send(jsonb,text,text,boolean)') is null
    or to_regprocedure('realtime.topic()') is null or to_regclass('realtime.messages') is null
  then
    return;
  end if;

  execute $migration$
    create or replace function private.broadcast_event() returns trigger
    language plpgsql security definer
    set search_path = ''
    as $function$
    begin
      perform realtime.send(
        jsonb_build_object(
          'type', new.type,
          'occurred_at', private.rfc3339(new.occurred_at),
          'org_id', new.org_id,
          'actor', jsonb_build_object('kind', new.actor_kind, 'id', new.actor_id),
          'subject', jsonb_build_object('kind', new.subject_kind, 'id', new.subject_id)
        ),
        new.type,
        'org:' || new.org_id || case when new.subject_kind in ('api_key', 'invitation') then ':admins' else '' end,
        true
      );
      return null;
    exception when others then
      raise warning 'the event % could not be broadcast: %', new.seq, sqlerrm;
      return null;
    end
    $function$
  $migration$;
  revoke execute on function private.broadcast_event() from public, anon, authenticated;
  execute 'drop trigger if exists broadcast on public.events';
  execute 'create trigger broadcast after insert on public.events
    for each row execute function private.broadcast_event()';

  execute 'drop policy if exists "members listen to their organisations" on realtime.messages';
  execute $policy$
    create policy "members listen to their organisations" on realtime.messages
      for select to authenticated using (
        extension = 'broadcast'
        and (
          (select realtime.topic()) = any (array(select 'org:' || org_id from private.my_orgs() as mine (org_id)))
          or (select realtime.topic()) = any (array(
            select 'org:' || org_id || ':admins' from private.my_orgs('admin') as mine (org_id)
          ))
        )
      )
  $policy$;
end
$guard$;

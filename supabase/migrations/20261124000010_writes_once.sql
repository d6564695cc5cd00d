-- What: idempotency keys, and every write of a POST as one function that answers with the whole thing.
-- Why:  each PostgREST request is a transaction of its own. Only what happens inside the write's own call commits with it,
--       so that a retry after a kill -9 between the write and the answer finds either both or neither.

-- The answers of the last 24 hours, by who asked and under which key. `fingerprint` is of the request: the same key with
-- another request is refused.
create table private.idempotent_answers (
  actor_id uuid not null,
  key text not null constraint idempotent_answers_key_length check (char_length(key) between 1 and 255),
  fingerprint text not null constraint idempotent_answers_fingerprint_form check (fingerprint ~ '^[0-9a-f]{64}$'),
  answer jsonb not null,
  created_at timestamptz not null default now(),
  primary key (actor_id, key)
);
create index idempotent_answers_by_age on private.idempotent_answers (created_at);
alter table private.idempotent_answers enable row level security;
revoke all on private.idempotent_answers from public, anon, authenticated;

-- The answer that the caller was given before; null where there was none. PT422 idempotency_key_reused where the key
-- stood for another request.
create function private.given_answer(of_key text, of_fingerprint text) returns jsonb
language plpgsql stable security definer
set search_path = ''
as $$
declare
  given private.idempotent_answers;
begin
  select * into given
  from private.idempotent_answers a
  where a.actor_id = private.actor_id() and a.key = of_key and a.created_at > now() - interval '24 hours';
  if given.fingerprint <> of_fingerprint then
    raise exception 'idempotency_key_reused' using errcode = 'PT422',
      detail = 'This Idempotency-Key came with another request before. Use a new key for each new request.';
  end if;
  return given.answer;
end
$$;

create function private.keep_answer(of_key text, of_fingerprint text, given_answer jsonb) returns void
language sql security definer
set search_path = ''
as $$
  insert into private.idempotent_answers (actor_id, key, fingerprint, answer)
  values (private.actor_id(), of_key, of_fingerprint, given_answer)
  on conflict (actor_id, key) do update
  set fingerprint = excluded.fingerprint, answer = excluded.answer, created_at = now()
$$;

-- Calls a function of `public`, as the caller, and keeps its answer under the caller's key: a repetition is answered
-- from there and does nothing. Null, by which our functions say that they wrote nothing, is not kept.
-- Only a function that may write and answers one jsonb is called: what was merely read is nobody's to keep here.
-- PT409 idempotency_key_in_use while a twin is at work, PT422 idempotency_key_reused for another request, PT404 where
-- there is no such function.
create function public.once(key text, fingerprint text, function text, arguments jsonb) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  called oid;
  given jsonb;
  named_arguments text;
begin
  if private.actor_id() is null then
    raise exception 'unauthenticated' using errcode = 'PT401', detail = 'Nobody asks.';
  elsif not pg_try_advisory_xact_lock(hashtextextended(private.actor_id() || ' ' || key, 0)) then
    raise exception 'idempotency_key_in_use' using errcode = 'PT409',
      detail = 'A request with this Idempotency-Key is being worked on. Try again in a second.';
  end if;
  given := private.given_answer(key, fingerprint);
  if given is not null then
    return given;
  end if;
  select p.oid into called
  from pg_catalog.pg_proc p
  where p.pronamespace = 'public'::regnamespace and p.proname = once.function and p.prokind = 'f' and not p.proretset
    and p.prorettype = 'jsonb'::regtype and p.provolatile = 'v' and p.proname <> 'once'
  order by p.oid
  limit 1;
  if called is null then
    raise exception 'not_found' using errcode = 'PT404', detail = 'There is no such function to call once.';
  end if;
  select string_agg(format(
    case
      when t.oid = 'jsonb'::regtype then '%I => $1 -> %L'
      when t.typcategory = 'A' then '%I => array(select jsonb_array_elements_text($1 -> %L))::%s'
      else '%I => ($1 ->> %L)::%s'
    end, a.name, a.name, a.type::regtype), ', ')
  into named_arguments
  from pg_catalog.pg_proc p
  cross join lateral unnest(p.proargnames, p.proargtypes::oid[]) as a (name, type)
  join pg_catalog.pg_type t on t.oid = a.type
  where p.oid = called and arguments ? a.name;
  execute format('select public.%I(%s)', once.function, named_arguments) into given using arguments;
  if given is not null then
    perform private.keep_answer(key, fingerprint, given);
  end if;
  return given;
end
$$;

-- What a refused request looks for: the answer of its first try, which may itself be why it is refused now.
create function public.recall_answer(key text, fingerprint text) returns jsonb
language sql stable
set search_path = ''
as $$
  select private.given_answer(key, fingerprint)
$$;

-- Answers with its argument: for what was worked out elsewhere and written nowhere, such as a preview, so that `once`
-- can keep it like any other answer. Volatile like a write, since `once` calls nothing else.
create function public.keep(answer jsonb) returns jsonb
language sql volatile
set search_path = ''
as $$
  select answer
$$;

-- Forgets answers past their time, at most `max_rows` a call; the worker calls it every hour. Answers how many.
create function public.forget_answers(max_rows integer) returns integer
language sql security definer
set search_path = ''
as $$
  with forgotten as (
    delete from private.idempotent_answers a
    where (a.actor_id, a.key) in (
      select old.actor_id, old.key from private.idempotent_answers old
      where old.created_at < now() - interval '24 hours' order by old.created_at limit max_rows
    )
    returning 1
  )
  select count(*)::integer from forgotten
$$;

-- Creates a monitor and answers with it. Runs as the caller, so that row-level security decides.
create function public.create_monitor(draft jsonb) returns jsonb
language sql
set search_path = ''
as $$
  insert into public.monitors (org_id, name, kind, target, interval_seconds, timeout_seconds, retry_interval_seconds,
    fail_threshold, recover_threshold, degraded_after_ms, expected_status, max_redirects, paused)
  select d.org_id, d.name, d.kind, d.target, d.interval_seconds, d.timeout_seconds, d.retry_interval_seconds,
    d.fail_threshold, d.recover_threshold, d.degraded_after_ms, d.expected_status, d.max_redirects, d.paused
  from jsonb_to_record(draft) as d (org_id uuid, name text, kind text, target text, interval_seconds integer,
    timeout_seconds integer, retry_interval_seconds integer, fail_threshold integer, recover_threshold integer,
    degraded_after_ms integer, expected_status text[], max_redirects integer, paused boolean)
  returning to_jsonb(monitors)
$$;

-- Creates many monitors: all of them or, with `each_by_itself`, those that can be. Answers one
-- {index, monitor} or {index, refused: {code, message, details, hint}}, as PostgREST spells a refusal, for each draft, in their order.
-- Without `each_by_itself` the first refusal is raised, and nothing is written.
create function public.create_monitors(drafts jsonb, each_by_itself boolean) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  draft jsonb;
  position integer;
  results jsonb[] := '{}';
  code text;
  message text;
  details text;
  hint_text text;
begin
  for draft, position in select d, o - 1 from jsonb_array_elements(drafts) with ordinality as e (d, o) loop
    if not each_by_itself then
      results := results || jsonb_build_object('index', position, 'monitor', public.create_monitor(draft));
      continue;
    end if;
    begin
      results := results || jsonb_build_object('index', position, 'monitor', public.create_monitor(draft));
    exception when others then
      get stacked diagnostics code = returned_sqlstate, message = message_text, details = pg_exception_detail,
        hint_text = pg_exception_hint;
      results := results || jsonb_build_object('index', position, 'refused', jsonb_build_object(
        'code', code, 'message', message, 'details', details, 'hint', hint_text));
    end;
  end loop;
  return to_jsonb(results);
end
$$;

-- Pauses or resumes a monitor and answers with it; null where there is none to change, or it has moved past
-- `expected_version`. Runs as the caller.
create function public.set_monitor_paused(monitor_id uuid, paused boolean, expected_version integer default null) returns jsonb
language sql
set search_path = ''
as $$
  update public.monitors m set paused = set_monitor_paused.paused
  where m.id = set_monitor_paused.monitor_id and (expected_version is null or m.version = expected_version)
  returning to_jsonb(m)
$$;

-- Moves an incident on if it still stands where it was read, and answers with it, else null. Runs as the caller.
create function public.move_incident(
  incident_id uuid, from_state text, to_state text, expected_version integer default null
) returns jsonb
language sql
set search_path = ''
as $$
  update public.incidents i set state = to_state
  where i.id = move_incident.incident_id and i.state = from_state
    and (expected_version is null or i.version = expected_version)
  returning to_jsonb(i)
$$;

-- Comments on an incident and answers with the comment. Runs as the caller.
create function public.comment_on_incident(incident_id uuid, org_id uuid, body text) returns jsonb
language sql
set search_path = ''
as $$
  insert into public.incident_comments (incident_id, org_id, body)
  values (comment_on_incident.incident_id, comment_on_incident.org_id, comment_on_incident.body)
  returning to_jsonb(incident_comments)
$$;

revoke execute on function public.once(text, text, text, jsonb), public.recall_answer(text, text), public.keep(jsonb),
  public.forget_answers(integer), public.create_monitor(jsonb), public.create_monitors(jsonb, boolean),
  public.set_monitor_paused(uuid, boolean, integer), public.move_incident(uuid, text, text, integer),
  public.comment_on_incident(uuid, uuid, text), private.given_answer(text, text),
  private.keep_answer(text, text, jsonb) from public, anon, authenticated;
grant execute on function public.once(text, text, text, jsonb), public.recall_answer(text, text), public.keep(jsonb),
  public.create_monitor(jsonb), public.create_monitors(jsonb, boolean), public.set_monitor_paused(uuid, boolean, integer),
  public.move_incident(uuid, text, text, integer), public.comment_on_incident(uuid, uuid, text),
  private.given_answer(text, text), private.keep_answer(text, text, jsonb) to authenticated, anon;
grant execute on function public.forget_answers(integer) to service_role;

-- What: the audit trail, read from the event log: one page of it for admins and owners, with who each actor was.
-- Why:  every member may read events, as the feed of what happened. Only who runs the organisation may ask who did what
--       from which session, with e-mail addresses, which live in auth.users where no member can look. So it is a function
--       that knows whom it answers.

-- Newest first, and between two moments, without a look at the rest of the log.
create index events_by_time on public.events (org_id, occurred_at desc, seq desc);

-- One page of what happened in an organisation, newest first, before (before_at, before_seq) where that is given:
-- {settled_below, entries}. Every filter may be null. Where org_id is, the caller must have one organisation alone: PT422
-- org_required. PT404 for a stranger, PT403 for a member below admin.
--
-- Only what is settled is shown: events of transactions before the oldest that still runs. `below_xid` cuts further: it is
-- `settled_below` of a first page, so that a walk over many pages misses nothing that commits meanwhile, since none of it
-- belongs to the walk. Before and after are the rows as they stand in the log: the API takes secrets out of them.
create function public.audit_page(
  org_id uuid, actor_id uuid, subject_kind text, subject_id uuid, type text, from_at timestamptz, to_at timestamptz,
  before_at timestamptz, before_seq bigint, below_xid text, max_rows integer
) returns jsonb
language plpgsql stable security definer
set search_path = ''
as $$
declare
  mine constant uuid[] := array(select private.my_orgs());
  settled_below constant xid8 := least(pg_snapshot_xmin(pg_current_snapshot()), audit_page.below_xid::xid8);
  wanted constant uuid := coalesce(audit_page.org_id, case when cardinality(mine) = 1 then mine[1] end);
  entries jsonb;
begin
  if wanted is null then
    raise exception 'org_required' using errcode = 'PT422', detail = case cardinality(mine)
      when 0 then 'You belong to no organisation yet.' else 'You belong to several organisations: say which one.' end,
      hint = '{"pointer": "org_id"}';
  end if;
  perform private.require_role(wanted, 'admin');

  -- Bounds that are not given are the widest, not `is null or`, which no index could serve.
  select jsonb_agg(to_jsonb(page) order by page.occurred_at desc, page.seq desc) into entries
  from (
    select e.seq, e.org_id, e.occurred_at, e.actor_kind, e.actor_id, u.email as actor_email, e.session_id, e.type,
      e.subject_kind, e.subject_id, e.before, e.after
    from public.events e
    left join auth.users u on u.id = e.actor_id
    where e.org_id = wanted
      and (e.occurred_at, e.seq)
        < (coalesce(audit_page.before_at, 'infinity'), coalesce(audit_page.before_seq, 9223372036854775807))
      and e.occurred_at >= coalesce(audit_page.from_at, '-infinity')
      and e.occurred_at < coalesce(audit_page.to_at, 'infinity')
      and e.xid < settled_below
      and (audit_page.actor_id is null or e.actor_id = audit_page.actor_id)
      and (audit_page.subject_kind is null or e.subject_kind = audit_page.subject_kind)
      and (audit_page.subject_id is null or e.subject_id = audit_page.subject_id)
      and (audit_page.type is null or e.type = audit_page.type)
    order by e.occurred_at desc, e.seq desc
    limit least(audit_page.max_rows, 1000)
  ) page;
  return jsonb_build_object('settled_below', settled_below::text, 'entries', coalesce(entries, '[]'::jsonb));
end
$$;
revoke execute on function public.audit_page(uuid, uuid, text, uuid, text, timestamptz, timestamptz, timestamptz, bigint,
  text, integer) from public, anon;
grant execute on function public.audit_page(uuid, uuid, text, uuid, text, timestamptz, timestamptz, timestamptz, bigint,
  text, integer) to authenticated, anon;

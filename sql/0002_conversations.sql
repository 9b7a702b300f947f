-- Conversations: one function an operation, so that each is atomic, one round trip, and the same over every transport.
--
-- Arguments are scalars, or JSON as text; each function answers with one JSON value.
-- A session that is named without a user is the one of that name the caller can see.
-- Errors of our own are told by their hint: ambiguous_session, several sessions have that name; conflict, a
-- compare-and-set lost. (Not every API passes on an SQLSTATE that is not in the standard.)
--
-- Functions that only read are stable: all their statements see one snapshot. Plans are made once a connection: every
-- statement here has one good plan, by an index that begins with user and session, and planning would cost more than
-- running it. Such a plan does not know how little of a session is asked for, so those that read a part of one are not
-- given the choice to read the whole table, as would be good for a third of it.

create view llm_memory.message_rows with (security_invoker = true) as
    select user_id, session_pk, seq, id, role, name, content, created_at,
           tokens, tokenizer, extra::text as extra
    from llm_memory.messages;

create function llm_memory.find_session(p_user_id text, p_session_id text) returns llm_memory.sessions
language plpgsql stable set search_path = '' set plan_cache_mode = force_generic_plan
as $$
declare
    found_sessions llm_memory.sessions[];
begin
    if p_user_id is not null then
        return (select s from llm_memory.sessions s where s.user_id = p_user_id and s.session_id = p_session_id);
    end if;
    select array_agg(s) into found_sessions
    from (select * from llm_memory.sessions x where x.session_id = p_session_id limit 2) s;
    if cardinality(found_sessions) > 1 then
        raise exception 'several users have a session of this name'
            using errcode = 'cardinality_violation', hint = 'ambiguous_session';
    end if;
    return found_sessions[1];
end $$;

-- Whose session is meant: of a name without a user the one that can be seen, else the caller's own, else nobody's.
create function llm_memory.user_of(p_user_id text, p_session_id text) returns text
language sql stable set search_path = ''
return coalesce(p_user_id, (llm_memory.find_session(null, p_session_id)).user_id, llm_memory.owner(), '');

-- The session, locked until the end of the transaction; begun when it is not there.
create function llm_memory.lock_session(p_user_id text, p_session_id text) returns llm_memory.sessions
language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan
as $$
declare
    session llm_memory.sessions;
begin
    loop  -- it may be begun, and erased again, by others at any time
        select * into session from llm_memory.sessions s
        where s.user_id = p_user_id and s.session_id = p_session_id for update;
        exit when found;
        insert into llm_memory.sessions (user_id, session_id) values (p_user_id, p_session_id) on conflict do nothing;
    end loop;
    return session;
end $$;

-- Store messages none of which the session holds yet, all or none. Answers the session afterwards, null when it is not
-- there or some message is: then nothing was done.
create function llm_memory.append_fresh(p_user_id text, p_session_id text, p_messages jsonb) returns llm_memory.sessions
language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan
as $$
declare
    session llm_memory.sessions;
    stored  integer;
begin
    update llm_memory.sessions s set
        last_seq = s.last_seq + g.messages, message_count = s.message_count + g.messages,
        turn_count = s.turn_count + g.turns, tokens = s.tokens + g.tokens, tokens_ever = s.tokens_ever + g.tokens,
        first_at = least(s.first_at, g.first_at), last_at = greatest(s.last_at, g.last_at)
    from (select count(*) as messages, count(*) filter (where x.role = 'user') as turns, sum(x.tokens) as tokens,
                 min(x.created_at) as first_at, max(x.created_at) as last_at
          from jsonb_to_recordset(p_messages) as x (role text, tokens integer, created_at timestamptz)) g
    where s.user_id = p_user_id and s.session_id = p_session_id
    returning s.* into session;
    if found then
        insert into llm_memory.messages (user_id, session_pk, seq, id, role, name, content, created_at, tokens,
                                         tokenizer, tokens_ever, extra)
        select p_user_id, session.pk, session.last_seq - count(*) over () + x.place, x.id, x.role, x.name, x.content,
               x.created_at, x.tokens, x.tokenizer,
               session.tokens_ever - sum(x.tokens) over () + sum(x.tokens) over (order by x.place), x.extra::json
        from rows from (jsonb_to_recordset(p_messages) as (
            id text, role text, name text, content text, created_at timestamptz, tokens integer, tokenizer text,
            extra text)) with ordinality as x (id, role, name, content, created_at, tokens, tokenizer, extra, place)
        on conflict (user_id, session_pk, id) do nothing;
        get diagnostics stored = row_count;
        if stored < jsonb_array_length(p_messages) then
            raise sqlstate 'LM001';
        end if;
    end if;
    return session;
exception when sqlstate 'LM001' then
    return null;
end $$;

-- p_batches: [{session_id, user_id?, messages: [{id, role, name?, content, created_at, tokens, tokenizer, extra?}, ...]},
-- ...], in the order in which the messages were said. Answers for each batch {"user_id", "stats"} where all were new and
-- are now the session's last; else also {"new": {id: seq}, "known": [the stored row of each the session already held]}.
create function public.append_messages(p_batches text) returns json
language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off
as $$
declare
    batches jsonb := p_batches;
    batch   jsonb;
    answers json[] := '{}';
    known   json;
    owners  text[] := '{}';
    owned_by text;
    session llm_memory.sessions;
    added   record;
begin
    if jsonb_array_length(batches) > 1 then
        -- Whose session each batch means is found in their order, in which one may begin what the next one names.
        for place in 0 .. jsonb_array_length(batches) - 1 loop
            batch := batches -> place;
            owners := owners || llm_memory.user_of(batch ->> 'user_id', batch ->> 'session_id');
            insert into llm_memory.sessions (user_id, session_id)
            values (owners[place + 1], batch ->> 'session_id') on conflict do nothing;
        end loop;
        -- A lock on its row gives every session's messages one order without gaps. Of several sessions the rows are
        -- locked in one order too, so that two calls never wait for each other.
        perform llm_memory.lock_session(r.user_id, r.session_id) from (
            select distinct owners[b.place] collate "C" as user_id, (b.batch ->> 'session_id') collate "C" as session_id
            from jsonb_array_elements(batches) with ordinality as b (batch, place) order by 1, 2) r;
    end if;
    for place in 0 .. jsonb_array_length(batches) - 1 loop
        batch := batches -> place;
        owned_by := coalesce(owners[place + 1], batch ->> 'user_id', llm_memory.user_of(null, batch ->> 'session_id'));
        session := llm_memory.append_fresh(owned_by, batch ->> 'session_id', batch -> 'messages');
        if session.pk is not null then
            answers := answers || json_build_object('user_id', owned_by, 'stats', row_to_json(session));
            continue;
        end if;
        session := llm_memory.lock_session(owned_by, batch ->> 'session_id');
        with given as (
            select * from rows from (jsonb_to_recordset(batch -> 'messages') as (
                id text, role text, name text, content text, created_at timestamptz, tokens integer, tokenizer text,
                extra text)) with ordinality as x (
                id, role, name, content, created_at, tokens, tokenizer, extra, place)
        ), fresh as (
            select g.*, row_number() over (order by g.place) as nth, sum(g.tokens) over (order by g.place) as running
            from (select x.*, row_number() over (partition by x.id order by x.place) as mention from given x) g
            left join lateral (  -- one look into the index of ids: the order leaves a planner without statistics no choice
                select m.seq from llm_memory.messages m
                where m.user_id = session.user_id and m.session_pk = session.pk and m.id >= g.id and m.id <= g.id
                order by m.id limit 1) held on true
            where held.seq is null and g.mention = 1
        ), stored as (
            insert into llm_memory.messages (user_id, session_pk, seq, id, role, name, content, created_at, tokens,
                                             tokenizer, tokens_ever, extra)
            select session.user_id, session.pk, session.last_seq + f.nth, f.id, f.role, f.name, f.content,
                   f.created_at, f.tokens, f.tokenizer, session.tokens_ever + f.running, f.extra::json
            from fresh f
            returning messages.id, messages.seq, messages.role, messages.tokens, messages.created_at)
        select count(*) as messages, count(*) filter (where s.role = 'user') as turns,
               coalesce(sum(s.tokens), 0) as tokens, min(s.created_at) as first_at, max(s.created_at) as last_at,
               coalesce(jsonb_object_agg(s.id, s.seq), '{}') as seqs
        into added from stored s;
        known := '[]';
        if added.messages < jsonb_array_length(batch -> 'messages') then
            select coalesce(json_agg(m), '[]') into known
            from (select distinct x ->> 'id' as id from jsonb_array_elements(batch -> 'messages') x) g
            cross join lateral (
                select * from llm_memory.message_rows r
                where r.user_id = session.user_id and r.session_pk = session.pk and r.id >= g.id and r.id <= g.id
                order by r.id limit 1) m
            where m.seq <= session.last_seq;
        end if;
        if added.messages > 0 then
            update llm_memory.sessions s set
                last_seq = s.last_seq + added.messages, message_count = s.message_count + added.messages,
                turn_count = s.turn_count + added.turns, tokens = s.tokens + added.tokens,
                tokens_ever = s.tokens_ever + added.tokens,
                first_at = least(s.first_at, added.first_at), last_at = greatest(s.last_at, added.last_at)
            where s.user_id = session.user_id and s.pk = session.pk
            returning * into session;
        end if;
        answers := answers || json_build_object(
            'user_id', session.user_id, 'stats', row_to_json(session), 'new', added.seqs, 'known', known);
    end loop;
    return array_to_json(answers);
end $$;

-- The end of a session, at least as much as is asked for: the newest p_size turns or tokens, or what was created since
-- p_since; but no more than p_max_tokens. Answers {"stats", "messages", "opening", "system"}, or null.
create function public.recent_messages(
    p_session_id text, p_user_id text default null, p_kind text default 'turns', p_size integer default 10,
    p_since timestamptz default null, p_max_tokens integer default null) returns json
language plpgsql stable set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off
as $$
declare
    session llm_memory.sessions := llm_memory.find_session(p_user_id, p_session_id);
    most    integer := least(p_max_tokens, case when p_kind = 'tokens' then p_size end);
    start   bigint := 0;
    reached bigint;
    begun   boolean;
    answer  json;
begin
    if session.pk is null then
        return null;
    end if;
    if p_kind = 'turns' then
        select min(t.seq) into start from (
            select m.seq from llm_memory.messages m
            where m.user_id = session.user_id and m.session_pk = session.pk and m.role = 'user'
            order by m.seq desc limit p_size) t;
    elsif p_kind = 'time' then
        -- From the newest turn that is older on: that it is older shows a later reader of a copy that nothing is missing.
        select m.seq into start from llm_memory.messages m
        where m.user_id = session.user_id and m.session_pk = session.pk and m.role = 'user' and m.created_at < p_since
          and m.seq < (select max(n.seq) from llm_memory.messages n  -- the newest turn is wanted however old it is
                       where n.user_id = session.user_id and n.session_pk = session.pk and n.role = 'user')
        order by m.seq desc limit 1;
    end if;
    start := coalesce(start, 0);
    if most is not null then
        select t.seq into reached from (
            select m.seq, sum(m.tokens) over (order by m.seq desc rows unbounded preceding) as total
            from llm_memory.messages m
            where m.user_id = session.user_id and m.session_pk = session.pk and m.role <> 'system') t
        where t.total >= most order by t.seq desc limit 1;
        start := greatest(start, coalesce(reached, 0));
        select m.seq into reached from llm_memory.messages m  -- results of tools are nothing without their call
        where m.user_id = session.user_id and m.session_pk = session.pk and m.seq <= start and m.role <> 'tool'
        order by m.seq desc limit 1;
        start := coalesce(reached, start);
    end if;
    select json_build_object(
        'stats', row_to_json(session),
        'messages', coalesce(json_agg(w order by w.seq), '[]'),
        'opening', case when coalesce((array_agg(w.role order by w.seq))[1], '') <> 'user' then (
            select row_to_json(m) from llm_memory.message_rows m
            where m.user_id = session.user_id and m.session_pk = session.pk and m.role = 'user' and m.seq < start
            order by m.seq desc limit 1) end,
        'system', (
            select row_to_json(m) from llm_memory.message_rows m
            where m.user_id = session.user_id and m.session_pk = session.pk and m.role = 'system' and m.seq < start
            order by m.seq desc limit 1)) into answer
    from llm_memory.message_rows w
    where w.user_id = session.user_id and w.session_pk = session.pk and w.seq >= start;
    return answer;
end $$;

create function public.page_messages(
    p_session_id text, p_user_id text default null, p_after bigint default 0, p_limit integer default 1000) returns json
language plpgsql stable set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off
as $$
declare
    session llm_memory.sessions := llm_memory.find_session(p_user_id, p_session_id);
begin
    return (select coalesce(json_agg(m), '[]') from (
        select * from llm_memory.message_rows x
        where x.user_id = session.user_id and x.session_pk = session.pk and x.seq > p_after
        order by x.seq limit p_limit) m);
end $$;

-- Sessions by user and name, from behind (p_after_user, p_after_session) on.
create function public.memory_sessions(
    p_user_id text default null, p_session_id text default null,
    p_after_user text default null, p_after_session text default null, p_limit integer default 100) returns json
language plpgsql stable set search_path = '' set plan_cache_mode = force_generic_plan
as $$
declare
    answer json;
begin
    if p_session_id is not null then
        select json_agg(s) into answer from (
            select * from llm_memory.sessions x
            where x.session_id = p_session_id and (p_user_id is null or x.user_id = p_user_id)
              and (p_after_user is null or (x.user_id, x.session_id) > (p_after_user, p_after_session))
            order by x.user_id limit p_limit) s;
    elsif p_user_id is not null then
        select json_agg(s) into answer from (
            select * from llm_memory.sessions x
            where x.user_id = p_user_id
              and (p_after_user is null or (x.user_id, x.session_id) > (p_after_user, p_after_session))
            order by x.session_id limit p_limit) s;
    else
        select json_agg(s) into answer from (
            select * from llm_memory.sessions x
            where p_after_user is null or (x.user_id, x.session_id) > (p_after_user, p_after_session)
            order by x.user_id, x.session_id limit p_limit) s;
    end if;
    return coalesce(answer, '[]');
end $$;

-- Erases all of a user, or of one session. Answers {"removed": {table: rows}, "sessions": [stats, ...]}.
create function public.forget_memory(p_user_id text default null, p_session_id text default null) returns json
language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan
as $$
declare
    session llm_memory.sessions;
    lives   bigint[];
    gone    json;
    removed jsonb := '{}';
    target  text;
    rows_of bigint;
begin
    if p_session_id is not null then
        session := llm_memory.find_session(p_user_id, p_session_id);
        lives := array[session.pk];
        p_user_id := coalesce(session.user_id, p_user_id);
    elsif p_user_id is null then
        raise exception 'name a user or a session' using errcode = '22004';
    end if;
    perform from llm_memory.sessions s  -- appends that have begun are waited for, and erased with the rest
        where s.user_id = p_user_id and (lives is null or s.pk = any (lives)) order by s.session_id for update;
    lives := array(select s.pk from llm_memory.sessions s
                   where s.user_id = p_user_id and (lives is null or s.pk = any (lives)));
    select coalesce(json_agg(s), '[]') into gone from llm_memory.sessions s
    where s.user_id = p_user_id and s.pk = any (lives);
    foreach target in array array['summaries', 'messages'] loop
        execute format('delete from llm_memory.%I where user_id = $1 and session_pk = any ($2)', target)
            using p_user_id, lives;
        get diagnostics rows_of = row_count;
        removed := removed || jsonb_build_object(target, rows_of);
    end loop;
    delete from llm_memory.sessions s where s.user_id = p_user_id and s.pk = any (lives);
    get diagnostics rows_of = row_count;
    removed := removed || jsonb_build_object('sessions', rows_of);
    if p_session_id is null then
        update llm_memory.facts set superseded_by = null where user_id = p_user_id and superseded_by is not null;
        update llm_memory.relations set superseded_by = null where user_id = p_user_id and superseded_by is not null;
        update llm_memory.entities set merged_into = null where user_id = p_user_id and merged_into is not null;
        foreach target in array array['facts', 'relations', 'entities', 'embeddings', 'memories', 'key_values'] loop
            execute format('delete from llm_memory.%I where user_id = $1', target) using p_user_id;
            get diagnostics rows_of = row_count;
            removed := removed || jsonb_build_object(target, rows_of);
        end loop;
    end if;
    return json_build_object('removed', removed, 'sessions', gone);
end $$;

-- Removes messages created before a moment, and summaries of nothing else. Answers as forget_memory does.
create function public.prune_messages(p_before timestamptz, p_user_id text default null) returns json
language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan
as $$
declare
    session llm_memory.sessions;
    gone    json[] := '{}';
    counted bigint;
    of_messages bigint := 0;
    of_summaries bigint := 0;
    of_sessions bigint := 0;
begin
    for session in
        select * from llm_memory.sessions s
        where s.first_at < p_before and (p_user_id is null or s.user_id = p_user_id)
        order by s.user_id, s.session_id for update
    loop
        gone := gone || row_to_json(session);
        delete from llm_memory.messages m
        where m.user_id = session.user_id and m.session_pk = session.pk and m.created_at < p_before;
        get diagnostics counted = row_count;
        of_messages := of_messages + counted;
        delete from llm_memory.summaries x
        where x.user_id = session.user_id and x.session_pk = session.pk and not exists (
            select from llm_memory.messages m
            where m.user_id = x.user_id and m.session_pk = x.session_pk and m.seq between x.from_seq and x.to_seq);
        get diagnostics counted = row_count;
        of_summaries := of_summaries + counted;
        update llm_memory.sessions s set (message_count, turn_count, tokens, first_at, last_at) = (
            select count(*), count(*) filter (where m.role = 'user'), coalesce(sum(m.tokens), 0),
                   min(m.created_at), max(m.created_at)
            from llm_memory.messages m where m.user_id = session.user_id and m.session_pk = session.pk)
        where s.user_id = session.user_id and s.pk = session.pk;
        delete from llm_memory.sessions s
        where s.user_id = session.user_id and s.pk = session.pk and s.message_count = 0;
        get diagnostics counted = row_count;
        of_sessions := of_sessions + counted;
    end loop;
    return json_build_object(
        'removed', json_build_object('summaries', of_summaries, 'messages', of_messages, 'sessions', of_sessions),
        'sessions', array_to_json(gone));
end $$;

-- Answers {"covered", "pending_tokens", "nodes"}, or null: all nodes no other covers, and the newest leaves below them.
create function public.read_summaries(p_session_id text, p_user_id text default null, p_finest integer default 64)
returns json
language plpgsql stable set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off
as $$
declare
    session llm_memory.sessions := llm_memory.find_session(p_user_id, p_session_id);
begin
    if session.pk is null then
        return null;
    end if;
    return json_build_object(
        'covered', session.covered_seq, 'pending_tokens', session.tokens_ever - session.covered_tokens,
        'nodes', (
            select coalesce(json_agg(n order by n.from_seq, n.level), '[]') from (
                (select x.level, x.from_seq, x.to_seq, x.lines, x.tokens, x.tokenizer, x.model, x.model_tokens,
                        x.created_at
                 from llm_memory.summaries x
                 where x.user_id = session.user_id and x.session_pk = session.pk and not x.rolled)
                union all
                (select x.level, x.from_seq, x.to_seq, x.lines, x.tokens, x.tokenizer, x.model, x.model_tokens,
                        x.created_at
                 from llm_memory.summaries x
                 where x.user_id = session.user_id and x.session_pk = session.pk and x.level = 0 and x.rolled
                 order by x.from_seq desc limit p_finest)) n));
end $$;

create function public.claim_summary(
    p_session_id text, p_user_id text, p_after bigint, p_holder text, p_until timestamptz, p_now timestamptz)
returns json
language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan
as $$
declare
    session llm_memory.sessions := llm_memory.find_session(p_user_id, p_session_id);
begin
    update llm_memory.sessions s set claim_holder = p_holder, claim_until = p_until
    where s.user_id = session.user_id and s.pk = session.pk and s.covered_seq = p_after
      and (s.claim_holder is null or s.claim_holder = p_holder or s.claim_until <= p_now);
    return to_json(found);
end $$;

create function public.release_summary(p_session_id text, p_user_id text, p_holder text) returns json
language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan
as $$
declare
    session llm_memory.sessions := llm_memory.find_session(p_user_id, p_session_id);
begin
    update llm_memory.sessions s set claim_holder = null, claim_until = null
    where s.user_id = session.user_id and s.pk = session.pk and s.claim_holder = p_holder;
    return to_json(found);
end $$;

-- p_node: {level, from_seq, to_seq, lines, tokens, tokenizer, model, model_tokens, created_at}
create function public.commit_summary(p_session_id text, p_user_id text, p_node text, p_holder text) returns json
language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan
as $$
declare
    session llm_memory.sessions := llm_memory.find_session(p_user_id, p_session_id);
    node    record;
    child   record;
begin
    select * into node from json_to_record(p_node::json) as x (
        level integer, from_seq bigint, to_seq bigint, lines json, tokens integer, tokenizer text, model text,
        model_tokens integer, created_at timestamptz);
    select * into session from llm_memory.sessions s
    where s.user_id = session.user_id and s.pk = session.pk and s.claim_holder = p_holder for update;
    if not found then
        raise exception 'the claim is gone, or the session with it'
            using errcode = 'object_not_in_prerequisite_state', hint = 'conflict';
    end if;
    if node.level = 0 then
        update llm_memory.sessions s set
            covered_seq = node.to_seq,
            covered_tokens = coalesce((
                select m.tokens_ever from llm_memory.messages m
                where m.user_id = s.user_id and m.session_pk = s.pk and m.seq <= node.to_seq
                order by m.seq desc limit 1), s.covered_tokens)
        where s.user_id = session.user_id and s.pk = session.pk
          and s.covered_seq = node.from_seq - 1 and s.last_seq >= node.to_seq
          and exists (select from llm_memory.messages m where m.user_id = s.user_id and m.session_pk = s.pk
                      and m.seq between node.from_seq and node.to_seq);
        if not found then
            raise exception 'messages %..% are not the next ones to be summarised', node.from_seq, node.to_seq
                using errcode = 'object_not_in_prerequisite_state', hint = 'conflict';
        end if;
    else
        select min(x.from_seq) as first, max(x.to_seq) as last, count(*) as number into child
        from llm_memory.summaries x
        where x.user_id = session.user_id and x.session_pk = session.pk and x.level = node.level - 1
          and not x.rolled and x.from_seq >= node.from_seq and x.to_seq <= node.to_seq;
        if child.number < 2 or child.first <> node.from_seq or child.last <> node.to_seq then
            raise exception 'no unrolled nodes of level % make up %..%', node.level - 1, node.from_seq, node.to_seq
                using errcode = 'object_not_in_prerequisite_state', hint = 'conflict';
        end if;
        update llm_memory.summaries x set rolled = true
        where x.user_id = session.user_id and x.session_pk = session.pk and x.level = node.level - 1
          and x.from_seq >= node.from_seq and x.to_seq <= node.to_seq;
    end if;
    insert into llm_memory.summaries (user_id, session_pk, level, from_seq, to_seq, lines, tokens, tokenizer, model,
                                      model_tokens, created_at)
    values (session.user_id, session.pk, node.level, node.from_seq, node.to_seq, node.lines, node.tokens,
            node.tokenizer, node.model, node.model_tokens, node.created_at);
    return to_json(true);
end $$;

-- Which migrations a client can rely on, which store this is, and whether it has hot copies; with p_hot it has from now on.
create function public.open_memory(p_hot boolean default false) returns json
language plpgsql set search_path = ''
as $$
declare
    opened llm_memory.store;
begin
    if p_hot and has_table_privilege('llm_memory.store', 'update') then
        update llm_memory.store set hot = true where not hot;
    end if;
    select * into opened from llm_memory.store;
    -- A database that is restored under another name, beside the first one, is another store.
    return json_build_object('version', 2, 'hot', opened.hot, 'store', md5(opened.id::text || (
        select d.oid::text from pg_catalog.pg_database d where d.datname = current_database())));
end $$;

-- Nobody but those who are named here may call anything, whatever the defaults of this server are.
revoke all on llm_memory.message_rows from public, anon, authenticated, service_role;
grant select on llm_memory.message_rows to authenticated, service_role;
do $$
declare
    which regprocedure;
begin
    foreach which in array array[
        'llm_memory.find_session(text, text)', 'llm_memory.lock_session(text, text)',
        'llm_memory.append_fresh(text, text, jsonb)',
        'llm_memory.user_of(text, text)',
        'public.append_messages(text)', 'public.recent_messages(text, text, text, integer, timestamptz, integer)',
        'public.page_messages(text, text, bigint, integer)', 'public.memory_sessions(text, text, text, text, integer)',
        'public.forget_memory(text, text)', 'public.prune_messages(timestamptz, text)',
        'public.read_summaries(text, text, integer)',
        'public.claim_summary(text, text, bigint, text, timestamptz, timestamptz)',
        'public.release_summary(text, text, text)', 'public.commit_summary(text, text, text, text)',
        'public.open_memory(boolean)']::regprocedure[]
    loop
        execute format('revoke execute on function %s from public, anon', which);
        execute format('grant execute on function %s to authenticated, service_role', which);
    end loop;
end $$;

insert into llm_memory.migrations (version, name) values (2, 'conversations');

-- Vector memory: records, the passages they are searched by, their words and vectors, and what BM25 knows of them all.
--
-- As in 0002 each operation is one function, its arguments are scalars, or JSON as text, and it answers with one JSON
-- value. All but memory_stats and the three for embeddings are about one user.
--
-- What a search reads of every passage stands in tables of its own, in rows that are kept whole: to read a tenant's
-- vectors, or words, is to read little else, and never out of line. Tenants are found by the btree that every key
-- begins with, under row-level security too, and those who are large can have an index for approximate search.
--
-- Statistics of a user are kept with every write and never counted. The row of corpora is locked first by whoever
-- writes, so the writers of one user wait for each other, in one order.
--
-- Functions that look up a few rows have generic plans, as in 0002. They may be made while the tables are empty, so each
-- statement has one way only: what is looked up for each of several rows is a lateral subquery with a limit, and beside
-- its primary key a table has no index that can be used without what it is for, even where its condition holds for all
-- rows. Those that may read much are planned for what they read.

do $$
declare
    installed text := (select extversion from pg_catalog.pg_extension where extname = 'vector');
begin
    if string_to_array(installed, '.')::integer[] < array[0, 8] then
        raise exception 'pgvector 0.8 or newer is needed: alter extension vector update (here is %)', installed;
    end if;
end $$;

-- They have been empty: there was no function that wrote them.
drop table llm_memory.embeddings;
drop table llm_memory.memories;

create table llm_memory.memories (
    user_id    text    collate "C" not null,
    id         text    collate "C" not null,
    revision   integer not null,
    session_id text    collate "C",
    source     text    collate "C",
    role       text    collate "C",
    name       text    collate "C",
    content    text    not null,
    metadata   jsonb   not null,                   -- what filters ask
    extra      json    not null,                   -- the same, tagged: what has to come back to the letter
    importance double precision not null,
    tokenizer  text    not null,
    created_at timestamptz not null,
    primary key (user_id, id)
);
create index memories_of_session on llm_memory.memories (user_id, session_id) where session_id is not null;
create index memories_of_source on llm_memory.memories (user_id, source) where source is not null;
create index memories_times on llm_memory.memories (user_id, created_at) where created_at is not null;
create index memories_speakers on llm_memory.memories (user_id, (case when name <> '' then name else role end))
    where case when name <> '' then name else role end is not null;

-- The parts of a record that are searched. Those of a session, or of a record of several that is in none, are a thread.
create table llm_memory.passages (
    user_id   text     collate "C" not null,
    pk        bigint   not null generated always as identity,  -- ascends with age; never given twice
    memory_id text     collate "C" not null,
    number    integer  not null,                   -- of the record's parts, from 0
    start     integer  not null,                   -- characters of its content
    stop      integer  not null,
    text      text,                                -- what stands there; null for the whole content
    thread    text     collate "C",                -- s and the session, r and the record, or nothing
    position  integer  not null,                   -- in the thread
    length    integer  not null,                   -- content words
    tokens    integer  not null,
    telling   double precision not null,
    terms     integer[]  not null,                 -- ascending
    counts    smallint[] not null,
    awaits    boolean  not null,                   -- has no vector yet
    primary key (user_id, memory_id, number) include (pk),
    foreign key (user_id, memory_id) references llm_memory.memories (user_id, id) on delete cascade
);
create unique index passages_by_pk on llm_memory.passages (user_id, pk) where pk is not null;
create index passages_in_order on llm_memory.passages (user_id, thread, position) where thread is not null;
create index passages_awaiting on llm_memory.passages (user_id, pk) where awaits;

do $$
begin
    perform set_config('search_path', (  -- wherever this database has put the extension
        select format('%I', nspname) from pg_catalog.pg_extension join pg_catalog.pg_namespace n on n.oid = extnamespace
        where extname = 'vector'), true);
    -- These two know their passages by number alone. A foreign key would be checked with every row that is written, and
    -- looked up with every one that goes; but passages go by the functions below alone, which take these along.
    -- What each term adds to the BM25 score of a passage, in units of its idf.
    create table llm_memory.words (
        user_id text   collate "C" not null,
        passage bigint not null,
        weights sparsevec(1000000000) not null,
        primary key (user_id, passage)
    ) with (toast_tuple_target = 8160);
    -- One vector a passage and embedder: while texts are embedded anew, searches go on over the old vectors.
    create table llm_memory.embeddings (
        user_id   text   collate "C" not null,
        passage   bigint not null,
        embedder  text   collate "C" not null,     -- provider, model and dimensions
        embedding vector not null,
        primary key (user_id, embedder, passage)
    ) with (toast_tuple_target = 8160);
    perform set_config('search_path', '', true);
end $$;
alter table llm_memory.words alter weights set storage main;
alter table llm_memory.embeddings alter embedding set storage main;

-- In how many passages of a user's each term stands.
create table llm_memory.terms (
    user_id  text    collate "C" not null,
    term     integer not null,
    passages bigint  not null,
    primary key (user_id, term)
) with (fillfactor = 70);
-- How many passages a user has, and the sum of their lengths. Without any there is no row.
create table llm_memory.corpora (
    user_id  text   collate "C" not null primary key,
    passages bigint not null,
    length   bigint not null
) with (fillfactor = 50);

-- Nothing is to be known of single users. A planner that believes somebody to have next to nothing, because they are new,
-- takes all ways to it for equally good, and the one that reads all they have once for every row is among them. Without
-- statistics everybody is expected to hold a two-hundredth of what there is, and is read by the index that fits best.
do $$
declare
    which regclass;
begin
    foreach which in array array['llm_memory.memories', 'llm_memory.passages', 'llm_memory.words',
                                 'llm_memory.embeddings', 'llm_memory.terms']::regclass[]
    loop
        execute format('alter table %s alter user_id set statistics 0', which);
    end loop;
end $$;

do $$
begin
    perform llm_memory.protect(which) from unnest(array[
        'llm_memory.memories', 'llm_memory.passages', 'llm_memory.words', 'llm_memory.embeddings', 'llm_memory.terms',
        'llm_memory.corpora']::regclass[]) as which;
end $$;
revoke all on all sequences in schema llm_memory from public, anon, authenticated, service_role;

-- Operators of the extension are looked up with the caller's rights, also where it is not Supabase that granted this.
do $$
declare
    place name := (select nspname from pg_catalog.pg_extension join pg_catalog.pg_namespace n on n.oid = extnamespace
                   where extname = 'vector');
begin
    if not (has_schema_privilege('authenticated', place, 'usage') and has_schema_privilege('service_role', place, 'usage'))
    then
        execute format('grant usage on schema %I to authenticated, service_role', place);
    end if;
end $$;

-- ---- what the functions below share

-- What p_where, {ids, session_id, source, since, until, path}, asks of a memory m, as the condition of a statement that
-- is given the user as $1 and p_where as $2. It is put together from these texts alone.
create function llm_memory.conditions(p_where json) returns text
language sql immutable parallel safe set search_path = ''
return concat_ws(' and ', 'm.user_id = $1',
    case when p_where ->> 'ids' is not null
        then $q$m.id = any (array(select json_array_elements_text($2 -> 'ids')))$q$ end,
    case when p_where ->> 'session_id' is not null then $q$m.session_id = $2 ->> 'session_id'$q$ end,
    case when p_where ->> 'source' is not null then $q$m.source = $2 ->> 'source'$q$ end,
    case when p_where ->> 'since' is not null
        then $q$m.created_at >= (select ($2 ->> 'since')::timestamptz)$q$ end,
    case when p_where ->> 'until' is not null
        then $q$m.created_at < (select ($2 ->> 'until')::timestamptz)$q$ end,
    case when p_where ->> 'path' is not null then $q$m.metadata @@ ($2 ->> 'path')::jsonpath$q$ end);

-- The passages of the memories that p_where asks for, or those of them that are among p_among.
create function llm_memory.passages_of(p_user_id text, p_where json, p_among bigint[] default null) returns bigint[]
language plpgsql stable set search_path = '' set enable_seqscan = on set jit = off
as $$
declare
    found bigint[];
begin
    execute 'select array_agg(p.pk) from llm_memory.passages p
             join llm_memory.memories m on m.user_id = p.user_id and m.id = p.memory_id
             where ' || llm_memory.conditions(p_where)
            || case when p_among is not null then ' and p.pk = any ($3)' else '' end
    into found using p_user_id, p_where, p_among;
    return coalesce(found, '{}');
end $$;

-- The embedders a user has vectors of: one look into the index for each.
create function llm_memory.embedders(p_user_id text) returns text[]
language plpgsql stable set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off
as $$
begin
    return array(
        with recursive x as (
            (select e.embedder from llm_memory.embeddings e where e.user_id = p_user_id order by e.embedder limit 1)
            union all
            select (select e.embedder from llm_memory.embeddings e
                    where e.user_id = p_user_id and e.embedder > x.embedder order by e.embedder limit 1)
            from x where x.embedder is not null)
        select x.embedder from x where x.embedder is not null);
end $$;

-- The first hundred names or roles of those who speak in a user's memories, in the same way. (Row-level security lets
-- into an index what is known to tell nothing of what it reads: CASE, but neither COALESCE nor sums.)
create function llm_memory.speakers(p_user_id text) returns text[]
language plpgsql stable set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off
as $$
begin
    return array(
        with recursive x as (
            (select case when m.name <> '' then m.name else m.role end as speaker from llm_memory.memories m
             where m.user_id = p_user_id and case when m.name <> '' then m.name else m.role end is not null
             order by case when m.name <> '' then m.name else m.role end limit 1)
            union all
            select (select case when m.name <> '' then m.name else m.role end from llm_memory.memories m
                    where m.user_id = p_user_id and case when m.name <> '' then m.name else m.role end > x.speaker
                    order by case when m.name <> '' then m.name else m.role end limit 1)
            from x where x.speaker is not null)
        select x.speaker from x where x.speaker is not null limit 100);
end $$;

-- Add stored passages to the statistics of their user (p_sign 1), or take them out (-1). Only for who has locked the
-- corpus. Terms are looked up one by one, however many the user has.
create function llm_memory.count_passages(p_user_id text, p_passages bigint[], p_sign integer) returns void
language plpgsql set search_path = '' set plan_cache_mode = force_custom_plan
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set enable_seqscan = off
as $$
begin
    merge into llm_memory.terms t using (
        select x.term, p_sign * count(*) as passages from llm_memory.passages p, unnest(p.terms) x (term)
        where p.user_id = p_user_id and p.pk = any (p_passages) group by x.term order by x.term) n
    on t.user_id = p_user_id and t.term = n.term
    when matched and t.passages + n.passages <= 0 then delete
    when matched then update set passages = t.passages + n.passages
    when not matched and n.passages > 0 then insert (user_id, term, passages) values (p_user_id, n.term, n.passages);
    update llm_memory.corpora c set passages = c.passages + p_sign * n.passages, length = c.length + p_sign * n.length
    from (select count(*) as passages, coalesce(sum(p.length), 0) as length from llm_memory.passages p
          where p.user_id = p_user_id and p.pk = any (p_passages)) n
    where c.user_id = p_user_id;
end $$;

-- Remove passages with all that hangs on them. Answers how many vectors they had. Only for who has locked the corpus.
create function llm_memory.remove_passages(p_user_id text, p_passages bigint[]) returns bigint
language plpgsql set search_path = '' set plan_cache_mode = force_custom_plan
as $$
declare
    known   text[] := llm_memory.embedders(p_user_id);
    vectors bigint;
begin
    perform llm_memory.count_passages(p_user_id, p_passages, -1);
    delete from llm_memory.embeddings e
    where e.user_id = p_user_id and e.embedder = any (known) and e.passage = any (p_passages);
    get diagnostics vectors = row_count;
    delete from llm_memory.words w where w.user_id = p_user_id and w.passage = any (p_passages);
    delete from llm_memory.passages p where p.user_id = p_user_id and p.pk = any (p_passages);
    return vectors;
end $$;

-- Remove memories; all of a user's when p_where is null. Answers {"records", "parts", "embeddings"}.
create function llm_memory.remove_memories(p_user_id text, p_where json) returns jsonb
language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    gone    bigint[];
    records bigint;
    parts   bigint;
    vectors bigint;
begin
    perform from llm_memory.corpora c where c.user_id = p_user_id for update;
    if p_where is null then
        delete from llm_memory.embeddings e where e.user_id = p_user_id;
        get diagnostics vectors = row_count;
        delete from llm_memory.words w where w.user_id = p_user_id;
        delete from llm_memory.passages p where p.user_id = p_user_id;
        get diagnostics parts = row_count;
        delete from llm_memory.memories m where m.user_id = p_user_id;
        get diagnostics records = row_count;
        delete from llm_memory.terms t where t.user_id = p_user_id;
        delete from llm_memory.corpora c where c.user_id = p_user_id;
    else
        gone := llm_memory.passages_of(p_user_id, p_where);
        vectors := llm_memory.remove_passages(p_user_id, gone);
        parts := cardinality(gone);
        execute 'delete from llm_memory.memories m where ' || llm_memory.conditions(p_where) using p_user_id, p_where;
        get diagnostics records = row_count;
        delete from llm_memory.corpora c where c.user_id = p_user_id and c.passages = 0;
    end if;
    return jsonb_build_object('records', records, 'parts', parts, 'embeddings', vectors);
end $$;

-- ---- writing

-- Passages that stay where their record is written again: one that was given a vector does not await any. Null stands
-- for what is not to be changed.
create function llm_memory.refresh_passages(
    p_user_id text, p_passages bigint[], p_awaits boolean[], p_tokens integer[], p_tellings double precision[])
returns void
language plpgsql set search_path = '' set plan_cache_mode = force_custom_plan
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set enable_seqscan = off
as $$
begin
    update llm_memory.passages p set awaits = p.awaits and x.awaits, tokens = coalesce(x.tokens, p.tokens),
                                     telling = coalesce(x.telling, p.telling)
    from unnest(p_passages, p_awaits, p_tokens, p_tellings) x (pk, awaits, tokens, telling)
    where p.user_id = p_user_id and p.pk = x.pk and (x.tokens is not null or (p.awaits and not x.awaits));
end $$;

-- Store records, all or none; see put_memories. Answers [[revision, created_at], ...]; or null where they have to be
-- stored one after the other, since two have one id, or one leaves its place in a session: then nothing was done.
-- p_preceding: how many records there are before these, by the numbers that p_parts gives them.
create function llm_memory.put_records(
    p_user_id text, p_records json, p_parts json, p_weights json, p_vectors json, p_preceding integer) returns json
language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    -- By the place of a record: what becomes of it, as what it is stored, and where in its session it begins.
    fates     "char"[];
    revisions integer[];
    moments   timestamptz[];
    positions integer[];
    ordered   boolean;
    pks       bigint[];  -- by the place of a part; 0 where it is not stored
    added     bigint[];
begin
    with judged as (
        -- n: it is new. r: its text, or session, is, so that it gets new passages. k: it keeps those it has. s: nothing
        -- is new, but maybe vectors. o: the same, cut in another way. c: it is not there in the revision it brings.
        select g.place, g.id, g.session_id, h.session_id as held_session, h.position,
               cardinality(g.spans) / 2 as size, cardinality(h.spans) / 2 as held_size, h.revision, h.created_at,
               g.created_at as given_at,
               case when h.id is null then case when g.revision = 0 then 'n' else 'c' end
                    when g.revision not in (0, h.revision) then 'c'
                    when h.extra::text = g.extra and (g.revision = 0 or h.created_at = g.created_at)
                         and (h.content, h.session_id, h.source, h.role, h.name, h.importance) is not distinct from
                             (g.content, g.session_id, g.source, g.role, g.name, g.importance)
                    then case when h.spans = g.spans then 's' else 'o' end
                    when h.spans = g.spans and (h.content, h.session_id) is not distinct from (g.content, g.session_id)
                    then 'k' else 'r' end as fate
        from rows from (json_to_recordset(p_records) as (
            id text, content text, extra text, session_id text, source text, role text, name text,
            importance double precision, created_at timestamptz, revision integer, spans integer[])) with ordinality as g (
            id, content, extra, session_id, source, role, name, importance, created_at, revision, spans, place)
        left join lateral (
            select m.*, x.spans, x.position from llm_memory.memories m cross join lateral (
                select array_agg(array[p.start, p.stop] order by p.number) as spans, min(p.position) as position
                from llm_memory.passages p where p.user_id = m.user_id and p.memory_id = m.id) x
            where m.user_id = p_user_id and m.id = g.id limit 1) h on true
    ), sessions as (
        select s.session_id, coalesce(x.position + 1, 0) as next
        from (select distinct j.session_id from judged j where j.session_id is not null and j.fate in ('n', 'r')) s
        left join lateral (
            select p.position from llm_memory.passages p
            where p.user_id = p_user_id and p.thread = 's' || s.session_id order by p.position desc limit 1) x on true
    )
    select array_agg(j.fate order by j.place),
           array_agg(coalesce(j.revision, 0) + (j.fate in ('n', 'r', 'k'))::integer order by j.place),
           array_agg(case when j.fate in ('s', 'o') then j.created_at else j.given_at end order by j.place),
           array_agg(case when j.stays then j.position else coalesce(s.next + j.taken - j.size, 0) end order by j.place),
           count(*) > 1 and (count(distinct j.id) < count(*) or bool_or(
               j.fate = 'r' and not j.stays and (j.session_id is not null or j.held_session is not null)))
    into fates, revisions, moments, positions, ordered
    from (select x.*, sum(x.size) over (
              partition by x.session_id, x.fate in ('n', 'r') and not x.stays order by x.place) as taken
          from (select *, fate = 'r' and size = held_size and session_id is not distinct from held_session as stays
                from judged) x) j
    left join sessions s using (session_id);
    if ordered then
        return null;
    end if;
    if 'c' = any (fates) then
        raise exception 'a record is not there in the revision it brings'
            using errcode = 'object_not_in_prerequisite_state', hint = 'conflict';
    end if;
    if 'r' = any (fates) then
        perform llm_memory.remove_passages(p_user_id, array(
            select p.pk from rows from (json_to_recordset(p_records) as (id text)) with ordinality as g (id, place)
            cross join lateral (
                select * from llm_memory.passages x where x.user_id = p_user_id and x.memory_id = g.id offset 0) p
            where fates[g.place] = 'r'));
    end if;
    insert into llm_memory.memories as m (user_id, id, revision, session_id, source, role, name, content, metadata,
                                          extra, importance, tokenizer, created_at)
    select p_user_id, g.id, revisions[g.place], g.session_id, g.source, g.role, g.name, g.content, g.metadata,
           g.extra::json, g.importance, g.tokenizer, g.created_at
    from rows from (json_to_recordset(p_records) as (
        id text, content text, extra text, session_id text, source text, role text, name text,
        importance double precision, created_at timestamptz, metadata jsonb, tokenizer text)) with ordinality as g (
        id, content, extra, session_id, source, role, name, importance, created_at, metadata, tokenizer, place)
    where fates[g.place] in ('n', 'r', 'k')
    on conflict (user_id, id) do update set
        revision = excluded.revision, session_id = excluded.session_id, source = excluded.source, role = excluded.role,
        name = excluded.name, content = excluded.content, metadata = excluded.metadata, extra = excluded.extra,
        importance = excluded.importance, tokenizer = excluded.tokenizer, created_at = excluded.created_at;
    insert into llm_memory.passages (user_id, memory_id, number, start, stop, text, thread, position, length, tokens,
                                     telling, terms, counts, awaits)
    select p_user_id, x.id, x.number, x.start, x.stop, x.text, x.thread,
           positions[x.record - p_preceding] + x.number, x.length, x.tokens, x.telling, x.terms, x.counts, x.awaits
    from json_to_recordset(p_parts) as x (
        record integer, id text, number integer, start integer, stop integer, text text, thread text, length integer,
        tokens integer, telling double precision, terms integer[], counts smallint[], awaits boolean)
    where fates[x.record - p_preceding] in ('n', 'r') order by x.record, x.number;
    select array_agg(case when x.fate <> 'o' then p.pk else 0 end order by x.place),
           array_agg(p.pk) filter (where x.fate in ('n', 'r'))
    into pks, added
    from (select *, fates[g.record - p_preceding] as fate
          from rows from (json_to_recordset(p_parts) as (record integer, id text, number integer)) with ordinality as g (
              record, id, number, place)) x
    left join lateral (
        select * from llm_memory.passages y
        where y.user_id = p_user_id and y.memory_id = x.id and y.number = x.number limit 1) p on true;
    insert into llm_memory.words (user_id, passage, weights)
    select p_user_id, pks[x.place], x.weights::extensions.sparsevec
    from rows from (json_to_recordset(p_parts) as (record integer), json_array_elements_text(p_weights))
         with ordinality as x (record, weights, place)
    where fates[x.record - p_preceding] in ('n', 'r');
    perform llm_memory.count_passages(p_user_id, added, 1);
    insert into llm_memory.embeddings (user_id, passage, embedder, embedding)
    select p_user_id, pks[x.place], x.embedder, x.vector::extensions.vector
    from rows from (json_to_recordset(p_parts) as (embedder text), json_array_elements_text(p_vectors))
         with ordinality as x (embedder, vector, place)
    where pks[x.place] > 0 and x.vector is not null
    on conflict (user_id, embedder, passage) do nothing;
    if 's' = any (fates) or 'k' = any (fates) then
        perform llm_memory.refresh_passages(
            p_user_id, array_agg(pks[x.place]), array_agg(x.awaits),
            array_agg(case x.fate when 'k' then x.tokens end), array_agg(case x.fate when 'k' then x.telling end))
        from (select *, fates[g.record - p_preceding] as fate from rows from (json_to_recordset(p_parts) as (
                  record integer, tokens integer, telling double precision, awaits boolean)) with ordinality as g (
                  record, tokens, telling, awaits, place)) x
        where x.fate in ('s', 'k');
    end if;
    return (select json_agg(json_build_array(revisions[x.place], moments[x.place]) order by x.place)
            from generate_subscripts(fates, 1) x (place));
end $$;

-- p_records: [{id, content, metadata, extra, session_id?, source?, role?, name?, importance, created_at, revision,
-- tokenizer, spans: [[start, stop], ...]}, ...]. A revision above 0 is the one to be replaced.
-- p_parts: [{record, id, number, start, stop, text?, thread?, length, tokens, telling, terms, counts, awaits,
-- embedder}, ...] of all records, in order: record is the place of theirs, counted from 1, text what stands there where
-- they are several, and awaits whether there is no vector.
-- p_weights, p_vectors: of each of these parts, the latter or null.
-- Answers [[revision, created_at], ...] of the records as now stored.
create function public.put_memories(p_user_id text, p_records text, p_parts text, p_weights text, p_vectors text)
returns json
language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    records json := p_records;
    parts   json := p_parts;
    weights json := p_weights;
    vectors json := p_vectors;
    answer  json;
    answers json[] := '{}';
    one     record;
begin
    if json_array_length(records) = 0 then
        return '[]';
    end if;
    insert into llm_memory.corpora as c (user_id, passages, length) values (p_user_id, 0, 0)
    on conflict (user_id) do update set passages = c.passages;  -- there, and locked
    answer := llm_memory.put_records(p_user_id, records, parts, weights, vectors, 0);
    if answer is not null then
        return answer;
    end if;
    for one in
        select r.place, json_build_array(r.record) as record, p.parts, p.weights, p.vectors
        from json_array_elements(records) with ordinality r (record, place)
        left join (
            select (x.part ->> 'record')::bigint as record, json_agg(x.part order by x.place) as parts,
                   json_agg(x.weights order by x.place) as weights, json_agg(x.vector order by x.place) as vectors
            from rows from (json_array_elements(parts), json_array_elements(weights), json_array_elements(vectors))
                 with ordinality x (part, weights, vector, place) group by 1) p
        on p.record = r.place
        order by r.place
    loop
        answers := answers || (llm_memory.put_records(
            p_user_id, one.record, one.parts, one.weights, one.vectors, one.place::integer - 1) -> 0);
    end loop;
    return array_to_json(answers);
end $$;

-- Answers {"records", "parts", "embeddings"}: how many there were. For p_where see llm_memory.conditions.
create function public.delete_memories(p_user_id text, p_where text default null) returns json
language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan
as $$
begin
    return llm_memory.remove_memories(p_user_id, p_where::json);
end $$;

-- ---- reading

create function public.count_memories(p_user_id text, p_where text default null) returns json
language plpgsql stable set search_path = ''
as $$
declare
    asked   json := p_where;
    counted bigint;
begin
    execute 'select count(*) from llm_memory.memories m where ' || llm_memory.conditions(asked)
    into counted using p_user_id, asked;
    return to_json(counted);
end $$;

-- Answers [[id, content, extra, session_id, source, role, name, importance, created_at, revision], ...], ordered by id,
-- from behind p_after on.
create function public.page_memories(
    p_user_id text, p_where text default null, p_after text default null, p_limit integer default 100) returns json
language plpgsql stable set search_path = '' set enable_sort = on set jit = off
as $$
declare
    asked json := p_where;
    found json;
begin
    -- Read in the order of ids, until there are enough; unless what is asked for is few by itself.
    if coalesce(asked ->> 'ids', asked ->> 'session_id', asked ->> 'source') is null then
        perform set_config('enable_sort', 'off', true);  -- as long as this function runs
    end if;
    execute 'select json_agg(json_build_array(x.id, x.content, x.extra::text, x.session_id, x.source, x.role, x.name,
                                              x.importance, x.created_at, x.revision))
             from (select * from llm_memory.memories m where ' || llm_memory.conditions(asked)
            || case when p_after is not null then ' and m.id > $3' else '' end || ' order by m.id limit $4) x'
    into found using p_user_id, asked, p_after, p_limit;
    return coalesce(found, '[]');
end $$;

-- Answers {"records", "parts", "pending", "embedders": {name: parts}}, of everybody who can be seen without a user.
create function public.memory_stats(p_user_id text default null) returns json
language plpgsql stable set search_path = '' set plan_cache_mode = force_custom_plan set jit = off
as $$
begin
    return json_build_object(
        'records', (select count(*) from llm_memory.memories m where p_user_id is null or m.user_id = p_user_id),
        'parts', (select coalesce(sum(c.passages), 0) from llm_memory.corpora c
                  where p_user_id is null or c.user_id = p_user_id),
        'pending', (select count(*) from llm_memory.passages p
                    where p.awaits and (p_user_id is null or p.user_id = p_user_id)),
        'embedders', (select coalesce(json_object_agg(x.embedder, x.passages), '{}') from (
            select e.embedder, count(*) as passages from llm_memory.embeddings e
            where p_user_id is null or e.user_id = p_user_id group by e.embedder) x));
end $$;

-- ---- searching

-- For how many dimensions the extension can index a vector as it is; beyond that in half the precision.
create function llm_memory.indexed_type(p_dimensions integer) returns text
language sql immutable parallel safe set search_path = ''
return case when p_dimensions <= 2000 then 'vector' else 'halfvec' end;

-- Make an index for approximate search among vectors of so many dimensions, for users with more than 20,000 passages.
-- For the owner of the tables. It takes minutes for a million, during which nobody writes, and less with much
-- maintenance_work_mem.
create function llm_memory.index_embeddings(p_dimensions integer) returns void
language plpgsql set search_path = ''
as $$
begin
    execute format(
        'create index if not exists embeddings_hnsw_%2$s on llm_memory.embeddings
         using hnsw ((embedding::extensions.%1$s(%2$s)) extensions.%1$s_ip_ops)
         where extensions.vector_dims(embedding) = %2$s', llm_memory.indexed_type(p_dimensions), p_dimensions);
end $$;

create function llm_memory.drop_embeddings_index(p_dimensions integer) returns void
language plpgsql set search_path = ''
as $$
begin
    execute format('drop index if exists llm_memory.embeddings_hnsw_%s', p_dimensions);
end $$;

-- The p_limit passages nearest to a vector; of p_allowed, unless that is null, and without those that have a vector of
-- one of the embedders in p_passed.
--
-- Of a list the planner sees how long it is, and chooses between looking each of it up and reading all; but it looks at
-- each to do so, which takes longer than reading all when there are many.
create function llm_memory.nearest(
    p_user_id text, p_embedder text, p_vector text, p_limit integer, p_allowed bigint[], p_passed text[]) returns bigint[]
language plpgsql stable set search_path = '' set plan_cache_mode = force_custom_plan set enable_seqscan = off set enable_bitmapscan = off set jit = off
as $$
begin
    if cardinality(p_allowed) <= 20000 then
        return array(
            select e.passage from llm_memory.embeddings e
            where e.user_id = p_user_id and e.embedder = p_embedder and e.passage = any (p_allowed)
              and (cardinality(p_passed) = 0 or not exists (
                  select from llm_memory.embeddings o
                  where o.user_id = p_user_id and o.embedder = any (p_passed) and o.passage = e.passage))
            order by e.embedding operator(extensions.<#>) p_vector::extensions.vector, e.passage limit p_limit);
    end if;
    return array(
        select e.passage from llm_memory.embeddings e
        where e.user_id = p_user_id and e.embedder = p_embedder
          and (p_allowed is null or e.passage in (select unnest(p_allowed)))
          and (cardinality(p_passed) = 0 or not exists (
              select from llm_memory.embeddings o
              where o.user_id = p_user_id and o.embedder = any (p_passed) and o.passage = e.passage))
        order by e.embedding operator(extensions.<#>) p_vector::extensions.vector, e.passage limit p_limit);
end $$;

-- About the same by the index for vectors of this length; null where there is none. Fewer where the user's passages are
-- few among those of others.
create function llm_memory.nearest_by_index(p_user_id text, p_embedder text, p_vector text, p_limit integer)
returns bigint[]
language plpgsql stable set search_path = '' set enable_sort = off set jit = off
set hnsw.iterative_scan = relaxed_order set hnsw.ef_search = 400 set hnsw.max_scan_tuples = 200000
set hnsw.scan_mem_multiplier = 8
as $$
declare
    dimensions integer := extensions.vector_dims(p_vector::extensions.vector);
    found      bigint[];
begin
    if to_regclass(format('llm_memory.embeddings_hnsw_%s', dimensions)) is not null then
        execute format(
            'select array_agg(x.passage) from (
                 select e.passage from llm_memory.embeddings e
                 where e.user_id = $1 and e.embedder = $2 and extensions.vector_dims(e.embedding) = %2$s
                 order by e.embedding::extensions.%1$s(%2$s) operator(extensions.<#>) $3::extensions.%1$s(%2$s)
                 limit $4) x', llm_memory.indexed_type(dimensions), dimensions)
        into found using p_user_id, p_embedder, p_vector, p_limit;
    end if;
    return found;
end $$;

-- The p_limit passages with the highest sum of weights times p_query over their terms, above nothing; of p_allowed,
-- unless that is null.
create function llm_memory.best_worded(p_user_id text, p_query text, p_limit integer, p_allowed bigint[])
returns bigint[]
language plpgsql stable set search_path = '' set plan_cache_mode = force_custom_plan set enable_seqscan = off set enable_indexscan = off set jit = off
as $$
begin
    if cardinality(p_allowed) <= 20000 then
        return array(
            select w.passage from llm_memory.words w
            where w.user_id = p_user_id and w.passage = any (p_allowed)
              and w.weights operator(extensions.<#>) p_query::extensions.sparsevec < 0
            order by w.weights operator(extensions.<#>) p_query::extensions.sparsevec, w.passage limit p_limit);
    end if;
    return array(
        select w.passage from llm_memory.words w
        where w.user_id = p_user_id and (p_allowed is null or w.passage in (select unnest(p_allowed)))
          and w.weights operator(extensions.<#>) p_query::extensions.sparsevec < 0
        order by w.weights operator(extensions.<#>) p_query::extensions.sparsevec, w.passage limit p_limit);
end $$;

-- Passages as match_memories answers them: {rows, counts}.
create function llm_memory.rows_of(p_user_id text, p_passages bigint[], p_words integer[]) returns json[]
language plpgsql stable set search_path = '' set plan_cache_mode = force_custom_plan
as $$
declare
    rows   json;
    counts json;
begin
    select json_agg(json_build_array(
        p.pk, p.length, p.tokens, p.thread, p.position, p.telling,
        case when p.text is not null then json_build_array(p.number, p.start, p.stop) end, m.tokenizer,
        m.id, coalesce(p.text, m.content), m.extra::text, m.session_id, m.source, m.role, m.name, m.importance,
        m.created_at, m.revision)) into rows
    from llm_memory.passages p join llm_memory.memories m on m.user_id = p.user_id and m.id = p.memory_id
    where p.user_id = p_user_id and p.pk = any (p_passages);
    select json_build_array(array_agg(p.pk), array_agg(w.place), array_agg(w.count)) into counts
    from llm_memory.passages p cross join lateral (
        select x.place - 1 as place, p.counts[array_position(p.terms, x.term)] as count
        from unnest(p_words) with ordinality x (term, place)) w
    where p.user_id = p_user_id and p.pk = any (p_passages) and p.terms && p_words and w.count is not null;
    return array[rows, counts];
end $$;

-- Candidates for a question: see VectorIndex.match.
-- p_probes: [[embedder, vector], ...]; p_terms: [number, ...]; for p_where see llm_memory.conditions.
-- Answers null when the user has nothing, else {"passages", "length", "held": in how many passages each term stands,
-- "speakers", "embedders", "rows": [[...], ...], "cosines": [[passages, values], ...] by embedder, "counts": [passages,
-- places in p_terms, values]}. What is null in the last four is empty.
create function public.match_memories(
    p_user_id text, p_probes text, p_terms text, p_where text default null, p_limit integer default 200) returns json
language plpgsql stable set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    corpus   llm_memory.corpora;
    probes   json := p_probes;
    names    text[] := array(select json_array_elements(probes) ->> 0);
    literals text[] := array(select json_array_elements(probes) ->> 1);
    asked    integer[] := array(select json_array_elements_text(p_terms::json)::integer);
    allowed  bigint[] := case when p_where is not null then llm_memory.passages_of(p_user_id, p_where::json) end;
    by_index boolean;
    held     bigint[];
    query    text;
    pool     bigint[] := '{}';
    near     bigint[];
    nearness real[];
    others   bigint[];
    cosines  json[];
    told     json[];
begin
    select * into corpus from llm_memory.corpora c where c.user_id = p_user_id;
    if not found then
        return null;
    end if;
    -- By the index it takes some 40 times as long for a vector as by reading all, and of the vectors it comes upon only
    -- the user's count.
    by_index := allowed is null and corpus.passages > 20000 and corpus.passages::float8 ^ 2 > 40.0 * p_limit * (
        select k.reltuples from pg_catalog.pg_class k where k.oid = 'llm_memory.embeddings'::regclass);
    for place in 1 .. cardinality(names) loop
        near := case when place = 1 and by_index then
            llm_memory.nearest_by_index(p_user_id, names[1], literals[1], p_limit) end;
        if near is null or cardinality(near) < p_limit then
            near := llm_memory.nearest(
                p_user_id, names[place], literals[place], p_limit, allowed, names[:place - 1]);
        end if;
        pool := pool || near;
    end loop;
    select array_agg(coalesce(t.passages, 0) order by w.place),
           '{' || string_agg(distinct w.term || ':' || ln(
               1 + (corpus.passages - t.passages + 0.5) / (t.passages + 0.5))::real, ',') || '}/1000000000'
    into held, query
    from unnest(asked) with ordinality w (term, place)
    left join lateral (
        select * from llm_memory.terms x where x.user_id = p_user_id and x.term = w.term limit 1) t on true;
    if query is not null then
        pool := pool || llm_memory.best_worded(p_user_id, query, p_limit, allowed);
    end if;
    pool := array(select distinct x.pk from unnest(pool) x (pk));
    if cardinality(pool) < corpus.passages then
        near := array(
            select p.pk from unnest(pool) x (pk)
            cross join lateral (
                select c.thread, c.position - 2 as first, c.position + 2 as last from llm_memory.passages c
                where c.user_id = p_user_id and c.pk >= x.pk and c.pk <= x.pk order by c.pk limit 1) c
            cross join lateral (
                select y.pk from llm_memory.passages y
                where y.user_id = p_user_id and y.thread = c.thread and y.position between c.first and c.last
                order by y.thread, y.position limit 5) p);
        if allowed is not null then
            near := llm_memory.passages_of(p_user_id, p_where::json, near);
        end if;
        pool := array(select distinct x.pk from unnest(pool || near) x (pk));
    end if;
    others := pool;
    for place in 1 .. cardinality(names) loop
        -- the cast of a parameter would be made for every row, that of a subquery is made once
        select array_agg(e.passage), array_agg(
            -(e.embedding operator(extensions.<#>) (select literals[place]::extensions.vector))::real)
        into near, nearness from llm_memory.embeddings e
        where e.user_id = p_user_id and e.embedder = names[place] and e.passage = any (others);
        cosines := cosines || json_build_array(near, nearness);
        if place < cardinality(names) then
            others := array(select unnest(others) except select unnest(near));
        end if;
    end loop;
    if pool <> '{}' then
        told := llm_memory.rows_of(p_user_id, pool, asked);
    end if;
    return json_build_object(
        'passages', corpus.passages, 'length', corpus.length, 'held', held, 'speakers', llm_memory.speakers(p_user_id),
        'embedders', llm_memory.embedders(p_user_id), 'cosines', cosines, 'rows', told[1], 'counts', told[2]);
end $$;

-- ---- embeddings to be made

-- Passages without a vector of an embedder, or without any: [[user_id, passage, text], ...], ordered by user and age,
-- from behind (p_after_user, p_after) on; of everybody who can be seen without a user.
create function public.pending_embeddings(
    p_embedder text default null, p_user_id text default null, p_after_user text default null,
    p_after bigint default 0, p_limit integer default 256) returns json
language plpgsql stable set search_path = '' set plan_cache_mode = force_custom_plan set jit = off
set enable_sort = off set enable_seqscan = off set enable_bitmapscan = off
as $$
begin
    return (
        select coalesce(json_agg(json_build_array(x.user_id, x.pk, coalesce(x.text, m.content))
                                 order by x.user_id, x.pk), '[]')
        from (select p.user_id, p.pk, p.memory_id, p.text from llm_memory.passages p
              where p.pk > 0 and (p_user_id is null or p.user_id = p_user_id)
                and (p_after_user is null or (p.user_id, p.pk) > (p_after_user, p_after))
                and case when p_embedder is null then p.awaits else (
                    select e.passage from llm_memory.embeddings e
                    where e.user_id = p.user_id and e.embedder = p_embedder and e.passage = p.pk) is null end
              order by p.user_id, p.pk limit p_limit) x
        join llm_memory.memories m on m.user_id = x.user_id and m.id = x.memory_id);
end $$;

-- p_embeddings: [{user_id, passage, vector}, ...]. Answers how many were stored: neither of passages that are gone, nor
-- where there was one.
create function public.fill_embeddings(p_embedder text, p_embeddings text) returns json
language plpgsql set search_path = '' set plan_cache_mode = force_custom_plan
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set enable_seqscan = off
as $$
declare
    filled bigint;
begin
    perform from llm_memory.corpora c where c.user_id in (
        select x.user_id from json_to_recordset(p_embeddings::json) as x (user_id text)) order by c.user_id for update;
    with stored as (
        insert into llm_memory.embeddings (user_id, passage, embedder, embedding)
        select p.user_id, p.pk, p_embedder, x.vector
        from json_to_recordset(p_embeddings::json) as x (user_id text, passage bigint, vector extensions.vector)
        cross join lateral (
            select * from llm_memory.passages y
            where y.user_id = x.user_id and y.pk >= x.passage and y.pk <= x.passage order by y.pk limit 1) p
        on conflict (user_id, embedder, passage) do nothing
        returning user_id, passage
    ), filled_now as (
        update llm_memory.passages p set awaits = false from (
            select y.user_id, y.pk from stored s cross join lateral (
                select * from llm_memory.passages z
                where z.user_id = s.user_id and z.pk >= s.passage and z.pk <= s.passage order by z.pk limit 1) y
            where y.awaits) w
        where p.user_id = w.user_id and p.pk = w.pk
    )
    select count(*) into filled from stored;
    return to_json(filled);
end $$;

-- Remove up to p_limit vectors of other embedders of passages that have one of p_embedder; answers how many.
create function public.retire_embeddings(p_embedder text, p_user_id text default null, p_limit integer default 10000)
returns json
language plpgsql set search_path = '' set plan_cache_mode = force_custom_plan set jit = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set enable_seqscan = off
as $$
declare
    retired bigint;
begin
    delete from llm_memory.embeddings e using (
        select o.user_id, o.embedder, o.passage from llm_memory.embeddings o
        join llm_memory.embeddings k on k.user_id = o.user_id and k.embedder = p_embedder and k.passage = o.passage
        where o.embedder <> p_embedder and (p_user_id is null or o.user_id = p_user_id) limit p_limit) x
    where e.user_id = x.user_id and e.embedder = x.embedder and e.passage = x.passage;
    get diagnostics retired = row_count;
    return to_json(retired);
end $$;

-- ---- what was there before

-- Erases all of a user, or of one session. Answers {"removed": {table: rows}, "sessions": [stats, ...]}.
create or replace function public.forget_memory(p_user_id text default null, p_session_id text default null) returns json
language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan
as $$
declare
    lives   bigint[];
    gone    json;
    removed jsonb := '{}';
    target  text;
    rows_of bigint;
begin
    if p_session_id is not null then
        lives := array[(llm_memory.find_session(p_user_id, p_session_id)).pk];
        p_user_id := llm_memory.user_of(p_user_id, p_session_id);
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
    removed := removed || jsonb_build_object('sessions', rows_of) || llm_memory.remove_memories(
        p_user_id, case when p_session_id is not null then json_build_object('session_id', p_session_id) end);
    if p_session_id is null then
        update llm_memory.facts set superseded_by = null where user_id = p_user_id and superseded_by is not null;
        update llm_memory.relations set superseded_by = null where user_id = p_user_id and superseded_by is not null;
        update llm_memory.entities set merged_into = null where user_id = p_user_id and merged_into is not null;
        foreach target in array array['facts', 'relations', 'entities', 'key_values'] loop
            execute format('delete from llm_memory.%I where user_id = $1', target) using p_user_id;
            get diagnostics rows_of = row_count;
            removed := removed || jsonb_build_object(target, rows_of);
        end loop;
    end if;
    return json_build_object('removed', removed, 'sessions', gone);
end $$;

create or replace function public.open_memory(p_hot boolean default false) returns json
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
    return json_build_object('version', 3, 'hot', opened.hot, 'store', md5(opened.id::text || (
        select d.oid::text from pg_catalog.pg_database d where d.datname = current_database())));
end $$;

-- Where this database has the extension in another schema, the functions that name it name that one.
do $$
declare
    place text := (select format('%I.', nspname) from pg_catalog.pg_extension
                   join pg_catalog.pg_namespace n on n.oid = extnamespace where extname = 'vector');
    which regprocedure;
begin
    if place <> 'extensions.' then
        for which in
            select p.oid from pg_catalog.pg_proc p  -- of an existing application's own functions none
            where (p.pronamespace = 'llm_memory'::regnamespace or p.pronamespace = 'public'::regnamespace
                   and p.proname in ('put_memories', 'match_memories', 'fill_embeddings', 'pending_embeddings'))
            and p.prosrc like '%extensions.%' and p.prolang = (select oid from pg_catalog.pg_language where lanname = 'plpgsql')
        loop
            execute replace(pg_get_functiondef(which), 'extensions.', place);
        end loop;
    end if;
end $$;

do $$
declare
    which regprocedure;
begin
    foreach which in array array[
        'llm_memory.conditions(json)', 'llm_memory.passages_of(text, json, bigint[])', 'llm_memory.embedders(text)', 'llm_memory.speakers(text)',
        'llm_memory.count_passages(text, bigint[], integer)', 'llm_memory.remove_passages(text, bigint[])', 'llm_memory.remove_memories(text, json)',
        'llm_memory.refresh_passages(text, bigint[], boolean[], integer[], double precision[])',
        'llm_memory.put_records(text, json, json, json, json, integer)', 'llm_memory.indexed_type(integer)',
        'llm_memory.nearest(text, text, text, integer, bigint[], text[])',
        'llm_memory.nearest_by_index(text, text, text, integer)',
        'llm_memory.best_worded(text, text, integer, bigint[])',
        'llm_memory.rows_of(text, bigint[], integer[])',
        'public.put_memories(text, text, text, text, text)', 'public.match_memories(text, text, text, text, integer)',
        'public.page_memories(text, text, text, integer)', 'public.count_memories(text, text)',
        'public.delete_memories(text, text)', 'public.memory_stats(text)',
        'public.pending_embeddings(text, text, text, bigint, integer)',
        'public.fill_embeddings(text, text)', 'public.retire_embeddings(text, text, integer)']::regprocedure[]
    loop
        execute format('revoke execute on function %s from public, anon', which);
        execute format('grant execute on function %s to authenticated, service_role', which);
    end loop;
    foreach which in array array[
        'llm_memory.index_embeddings(integer)', 'llm_memory.drop_embeddings_index(integer)']::regprocedure[]
    loop
        execute format('revoke execute on function %s from public, anon, authenticated, service_role', which);
    end loop;
end $$;

insert into llm_memory.migrations (version, name) values (3, 'memories');

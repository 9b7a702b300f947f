-- Tables, ownership and row-level security of all memories. Functions that work on them follow in later migrations.
--
-- Everything lives in the schema llm_memory, which no API exposes: callers reach it through the functions in public,
-- which run with the caller's rights. Each row belongs to a user, and every unique key begins with that user, so that
-- no key of one user's can collide with, or betray, a row of another's.
--
-- On Supabase the roles and the schema `extensions` are there already. Elsewhere this makes them, which takes a
-- superuser (or a role with CREATEROLE and BYPASSRLS, once the extension vector is there).

create schema if not exists extensions;
create schema if not exists llm_memory;

create table llm_memory.migrations (
    version    integer     primary key,
    name       text        not null,
    applied_at timestamptz not null default now()
);

do $$
declare
    wanted record;
begin
    for wanted in values ('authenticator', 'nologin noinherit'), ('anon', 'nologin noinherit'),
                         ('authenticated', 'nologin noinherit'), ('service_role', 'nologin noinherit bypassrls')
    loop
        begin
            if not exists (select from pg_catalog.pg_roles where rolname = wanted.column1) then
                execute format('create role %I %s', wanted.column1, wanted.column2);
            end if;
        exception when duplicate_object or unique_violation then null;  -- roles belong to all databases of a server
        end;
        if wanted.column1 <> 'authenticator' and not pg_has_role('authenticator', wanted.column1, 'member')
        then
            execute format('grant %I to authenticator', wanted.column1);
        end if;
    end loop;
end $$;

create extension if not exists vector with schema extensions;

-- Whose rows a transaction may see: the subject of the token it was opened for. Null without one, which equals nothing.
create function llm_memory.owner() returns text
language sql stable parallel safe set search_path = ''
return nullif(current_setting('request.jwt.claims', true), '')::json ->> 'sub';

-- Policies spell that out instead of calling the function, which would cost more than the rest of an insert. The inner
-- select is for Supabase's lints, which see no other sign that it is not read again for each row.
create function llm_memory.protect(which regclass) returns void
language plpgsql set search_path = ''
as $$
declare
    own text := $sql$user_id = (
        select nullif((select current_setting('request.jwt.claims', true)), '')::json ->> 'sub')$sql$;
begin
    execute format('alter table %s enable row level security', which);
    execute format('alter table %s force row level security', which);
    execute format('revoke all on %s from public, anon, authenticated, service_role', which);
    execute format('grant select, insert, update, delete on %s to authenticated, service_role', which);
    execute format('create policy own_select on %s for select to authenticated using (%s)', which, own);
    execute format('create policy own_insert on %s for insert to authenticated with check (%s)', which, own);
    execute format('create policy own_update on %s for update to authenticated using (%s) with check (%s)',
                   which, own, own);
    execute format('create policy own_delete on %s for delete to authenticated using (%s)', which, own);
end $$;

-- Sessions carry running totals, so that no read has to count messages.
create table llm_memory.sessions (
    user_id        text   collate "C" not null,
    session_id     text   collate "C" not null,
    pk             bigint not null generated always as identity,  -- tells a new life of a session from an old one
    last_seq       bigint not null default 0,
    message_count  bigint not null default 0,
    turn_count     bigint not null default 0,
    tokens         bigint not null default 0,      -- of the messages that are there
    first_at       timestamptz,
    last_at        timestamptz,
    tokens_ever    bigint not null default 0,      -- of all messages ever appended; grows only
    covered_seq    bigint not null default 0,      -- summarised up to here
    covered_tokens bigint not null default 0,      -- tokens_ever at covered_seq
    claim_holder   text,
    claim_until    timestamptz,
    primary key (user_id, session_id),
    unique (user_id, pk)
) with (fillfactor = 70);                          -- every append updates its row: room for it on the same page
create index sessions_by_name on llm_memory.sessions (session_id);
create index sessions_by_age on llm_memory.sessions (first_at);

create table llm_memory.messages (
    user_id     text   collate "C" not null,
    session_pk  bigint not null,
    seq         bigint not null,                   -- 1..N in the order of commits, without gaps
    id          text   collate "C" not null,
    role        text   not null,
    name        text,
    content     text   not null,
    created_at  timestamptz not null,
    tokens      integer not null,
    tokenizer   text   not null,
    tokens_ever bigint not null,
    extra       json,                              -- tagged JSON, kept to the letter: jsonb would rewrite numbers
    primary key (user_id, session_pk, seq),
    unique (user_id, session_pk, id),
    foreign key (user_id, session_pk) references llm_memory.sessions (user_id, pk) on delete cascade
);
create index messages_turns on llm_memory.messages (user_id, session_pk, seq) where role = 'user';
create index messages_systems on llm_memory.messages (user_id, session_pk, seq) where role = 'system';

create table llm_memory.summaries (
    user_id      text    collate "C" not null,
    session_pk   bigint  not null,
    level        integer not null,
    from_seq     bigint  not null,
    to_seq       bigint  not null,
    rolled       boolean not null default false,   -- a node of the next level covers it
    lines        json    not null,
    tokens       integer not null,
    tokenizer    text    not null,
    model        text    not null,
    model_tokens integer not null,
    created_at   timestamptz not null,
    primary key (user_id, session_pk, level, from_seq),
    foreign key (user_id, session_pk) references llm_memory.sessions (user_id, pk) on delete cascade
);
create index summaries_top on llm_memory.summaries (user_id, session_pk, from_seq) where not rolled;

create table llm_memory.key_values (
    user_id    text   collate "C" not null,
    namespace  text   collate "C" not null,
    key        text   collate "C" not null,
    value      json   not null,
    version    bigint not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    expires_at timestamptz,
    primary key (user_id, namespace, key)
);
create index key_values_expiry on llm_memory.key_values (expires_at) where expires_at is not null;

-- Texts to be found again. Where one comes from: its session and messages, its source, its parent document.
create table llm_memory.memories (
    user_id      text   collate "C" not null,
    id           text   collate "C" not null,
    session_id   text   collate "C",
    parent_id    text   collate "C",
    position     integer not null default 0,       -- of a passage in its parent
    content      text   not null,
    content_hash text   not null,
    metadata     jsonb  not null default '{}',     -- what filters ask
    extra        json,                             -- what has to come back to the letter
    source       text,
    message_ids  text[] not null default '{}',
    tokens       integer not null default 0,
    tokenizer    text   not null default '',
    created_at   timestamptz not null,
    updated_at   timestamptz not null default now(),
    valid_from   timestamptz,
    valid_to     timestamptz,
    primary key (user_id, id),
    foreign key (user_id, parent_id) references llm_memory.memories (user_id, id) on delete cascade
);
create index memories_of_parent on llm_memory.memories (user_id, parent_id);
create index memories_of_session on llm_memory.memories (user_id, session_id);
create index memories_times on llm_memory.memories (user_id, created_at);

create table llm_memory.entities (
    user_id       text   collate "C" not null,
    id            text   collate "C" not null,
    type          text   not null,
    name          text   not null,
    aliases       text[] not null default '{}',
    attributes    json   not null default '{}',
    importance    real   not null default 0,
    mention_count bigint not null default 0,
    first_seen_at timestamptz not null,
    last_seen_at  timestamptz not null,
    merged_into   text   collate "C",              -- a merge can be undone
    primary key (user_id, id),
    foreign key (user_id, merged_into) references llm_memory.entities (user_id, id)
);
create index entities_by_name on llm_memory.entities (user_id, lower(name));
create index entities_merged on llm_memory.entities (user_id, merged_into);

-- What holds of an entity, from when to when, since when it is known, and who said so. Never updated to another
-- value: a newer fact closes the older one.
create table llm_memory.facts (
    user_id       text   collate "C" not null,
    id            text   collate "C" not null,
    entity_id     text   collate "C" not null,
    attribute     text   not null,
    value         text   not null,
    confidence    real   not null default 1,
    status        text   not null default 'current',
    valid_from    timestamptz,
    valid_to      timestamptz,
    recorded_at   timestamptz not null default now(),
    superseded_by text   collate "C",
    session_id    text   collate "C",
    message_ids   text[] not null default '{}',
    primary key (user_id, id),
    foreign key (user_id, entity_id) references llm_memory.entities (user_id, id) on delete cascade,
    foreign key (user_id, superseded_by) references llm_memory.facts (user_id, id)
);
create index facts_of_entity on llm_memory.facts (user_id, entity_id, attribute);
create index facts_superseded on llm_memory.facts (user_id, superseded_by);
create index facts_of_session on llm_memory.facts (user_id, session_id);

create table llm_memory.relations (
    user_id       text   collate "C" not null,
    id            text   collate "C" not null,
    subject_id    text   collate "C" not null,
    predicate     text   not null,
    object_id     text   collate "C" not null,
    confidence    real   not null default 1,
    status        text   not null default 'current',
    valid_from    timestamptz,
    valid_to      timestamptz,
    recorded_at   timestamptz not null default now(),
    superseded_by text   collate "C",
    session_id    text   collate "C",
    message_ids   text[] not null default '{}',
    primary key (user_id, id),
    foreign key (user_id, subject_id) references llm_memory.entities (user_id, id) on delete cascade,
    foreign key (user_id, object_id) references llm_memory.entities (user_id, id) on delete cascade,
    foreign key (user_id, superseded_by) references llm_memory.relations (user_id, id)
);
create index relations_of_subject on llm_memory.relations (user_id, subject_id, predicate);
create index relations_of_object on llm_memory.relations (user_id, object_id, predicate);
create index relations_superseded on llm_memory.relations (user_id, superseded_by);
create index relations_of_session on llm_memory.relations (user_id, session_id);

-- One vector a text and embedder, apart from the texts: while texts are embedded anew, searches go on over the old
-- vectors. No dimension is fixed; indexes for approximate search are made per dimension where a tenant is large.
do $$
begin
    perform set_config('search_path', (  -- wherever this database has put the extension
        select format('%I', nspname) from pg_catalog.pg_extension join pg_catalog.pg_namespace n on n.oid = extnamespace
        where extname = 'vector'), true);
    create table llm_memory.embeddings (
        user_id    text   collate "C" not null,
        memory_id  text   collate "C" not null,
        embedder   text   collate "C" not null,        -- provider, model and dimensions
        embedding  vector not null,
        created_at timestamptz not null default now(),
        primary key (user_id, embedder, memory_id),
        foreign key (user_id, memory_id) references llm_memory.memories (user_id, id) on delete cascade
    );
    create index embeddings_of_memory on llm_memory.embeddings (user_id, memory_id);
    perform set_config('search_path', '', true);
end $$;

do $$
begin
    perform llm_memory.protect(which) from unnest(array[
        'llm_memory.sessions', 'llm_memory.messages', 'llm_memory.summaries', 'llm_memory.key_values',
        'llm_memory.memories', 'llm_memory.embeddings', 'llm_memory.entities', 'llm_memory.facts', 'llm_memory.relations'
    ]::regclass[]) as which;
end $$;

-- Which store this is, so that copies of two stores kept in one Redis never meet; and whether there are copies at all, so
-- that who cannot reach them erases nothing here and leaves it there.
create table llm_memory.store (
    id  uuid    primary key default gen_random_uuid(),
    hot boolean not null default false
);
insert into llm_memory.store default values;
alter table llm_memory.store enable row level security;
alter table llm_memory.store force row level security;
revoke all on llm_memory.store from public, anon, authenticated, service_role;
grant select on llm_memory.store to authenticated, service_role;
grant update on llm_memory.store to service_role;
create policy everyone_select on llm_memory.store for select to authenticated using (true);

-- The list of migrations belongs to nobody: only who migrates reads and writes it.
alter table llm_memory.migrations enable row level security;
revoke all on llm_memory.migrations from public, anon, authenticated, service_role;

revoke all on all sequences in schema llm_memory from public, anon, authenticated, service_role;
revoke all on schema llm_memory from public, anon, authenticated, service_role;
grant usage on schema llm_memory to authenticated, service_role;
revoke execute on function llm_memory.protect(regclass) from public, anon, authenticated, service_role;
revoke execute on function llm_memory.owner() from public, anon;
grant execute on function llm_memory.owner() to authenticated, service_role;

insert into llm_memory.migrations (version, name) values (1, 'schema');

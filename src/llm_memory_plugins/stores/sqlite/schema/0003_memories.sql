-- Vector memory. All rows of a user are numbered by one count, whatever table they are in: the number of the corpus,
-- times 2^36, plus the next one. So they lie together in every table, and what came since a moment has higher numbers.
create table corpora (
    pk      integer primary key autoincrement,         -- never used again: tells a new life of a user from an old one
    user_id text    not null unique,
    last    integer not null                           -- the number given last
);

-- So that who keeps copies of several users in memory notices when one of them was erased.
create table erasures (count integer not null);
insert into erasures values (0);

create table records (
    pk         integer primary key,
    corpus_pk  integer not null references corpora (pk),
    id         text    not null,
    revision   integer not null,
    created_at integer not null,
    session_id text,
    position   integer not null,                       -- of its first part in the session
    first_part integer not null,                       -- its parts are numbered from here on
    parts      integer not null,
    importance real    not null,
    source     text,
    role       text,
    name       text,
    tokenizer  text    not null,
    metadata   text,                                   -- tagged JSON; null for none
    content    text    not null,
    thread     text    generated always as (           -- what its parts are neighbours in
        case when session_id is not null then 's' || session_id when parts > 1 then 'r' || id end),
    speaker    text    generated always as (coalesce(nullif(name, ''), role, '')),
    unique (corpus_pk, id)
);
create index records_of_session on records (session_id, corpus_pk, position) where session_id is not null;

create table parts (
    pk        integer primary key,
    record_pk integer not null,
    number    integer not null,                        -- its place in the record
    start     integer not null,                        -- characters of the content
    stop      integer not null,
    length    integer not null,
    tokens    integer not null,
    telling   real    not null,
    waiting   integer not null,                        -- 1: it has no vector at all
    terms     blob    not null,                        -- ascending, 4 bytes each, the lowest byte first
    counts    blob    not null                         -- how often each stands in it, 2 bytes each
);
create index parts_waiting on parts (pk) where waiting = 1;

create table embedders (
    pk         integer primary key,
    identity   text    not null unique,
    dimensions integer not null
);

create table vectors (
    pk          integer primary key,
    part_pk     integer not null,
    embedder_pk integer not null references embedders (pk),
    vector      blob    not null,                      -- float32
    unique (part_pk, embedder_pk)
);

-- Which records were altered or removed, for those who keep a copy in memory; the newest million numbers of a corpus.
create table record_changes (
    pk        integer primary key,
    record_pk integer not null                         -- 0: all of them
);

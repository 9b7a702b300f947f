-- Sessions carry running totals, so that no read has to count messages.
create table sessions (
    pk             integer primary key autoincrement,  -- never used again: tells a new life of a session from an old one
    user_id        text    not null,
    session_id     text    not null,
    last_seq       integer not null default 0,
    message_count  integer not null default 0,
    turn_count     integer not null default 0,
    tokens         integer not null default 0,         -- of the messages that are there
    first_at       integer,                            -- microseconds since 1970, UTC, as are all times here
    last_at        integer,
    tokens_ever    integer not null default 0,         -- of all messages ever appended; grows only
    covered_seq    integer not null default 0,         -- summarised up to here
    covered_tokens integer not null default 0,         -- tokens_ever at covered_seq
    claim_holder   text,
    claim_until    integer,
    unique (user_id, session_id)
);
create index sessions_by_name on sessions (session_id);
create index sessions_by_age on sessions (first_at);

create table messages (
    session_pk  integer not null references sessions (pk) on delete cascade,
    seq         integer not null,
    id          text    not null,
    role        text    not null,
    name        text,
    content     text    not null,
    created_at  integer not null,
    tokens      integer not null,
    tokenizer   text    not null,
    tokens_ever integer not null,                      -- running total: finds a token window without adding up
    extra       text,
    primary key (session_pk, seq),
    unique (session_pk, id)
) without rowid;
create index messages_turns on messages (session_pk, seq) where role = 'user';
create index messages_systems on messages (session_pk, seq) where role = 'system';
create index messages_tokens on messages (session_pk, tokens_ever);
create index messages_times on messages (session_pk, created_at);

create table summaries (
    session_pk   integer not null references sessions (pk) on delete cascade,
    level        integer not null,
    from_seq     integer not null,
    to_seq       integer not null,
    rolled       integer not null default 0,           -- 1: a node of the next level covers it
    lines        text    not null,
    tokens       integer not null,
    tokenizer    text    not null,
    model        text    not null,
    model_tokens integer not null,
    created_at   integer not null,
    primary key (session_pk, level, from_seq)
) without rowid;
create index summaries_top on summaries (session_pk, from_seq) where rolled = 0;

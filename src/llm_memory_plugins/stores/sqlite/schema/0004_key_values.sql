-- Values by key. A write is a new row in the place of the old one, so the version of a key only grows, over removals too.
create table key_values (
    version    integer primary key autoincrement,
    user_id    text    not null,
    namespace  text    not null,
    key        text    not null,
    body       text    not null,
    encoding   text    not null,                       -- how the value is got from the body
    created_at integer not null,
    updated_at integer not null,
    expires_at integer,
    unique (user_id, namespace, key)
);
create index key_values_newest on key_values (user_id, namespace, version);
create index key_values_expiry on key_values (expires_at) where expires_at is not null;

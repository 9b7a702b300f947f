-- Which store this is, so that copies of two stores kept in one Redis never meet; and whether there are copies at all, so
-- that who cannot reach them erases nothing here and leaves it there.
create table store (
    id  text    not null,
    hot integer not null default 0
);
insert into store (id) values (lower(hex(randomblob(16))));
drop index messages_tokens;                              -- token windows read backwards until they are full

-- Brings a database up to date, whole or not at all; doing it again changes nothing.
--
--     psql "$DATABASE_URL" -f sql/database_migrations.sql
--
-- `llm-memory migrate` does the same without psql.
\set ON_ERROR_STOP on
\set QUIET on
begin;
set local client_min_messages = warning;
select pg_advisory_xact_lock(7305716412045301) as locked \gset
select to_regclass('llm_memory.migrations') is not null as begun \gset
\if :begun
    select coalesce(max(version), 0) as applied from llm_memory.migrations \gset
\else
    \set applied 0
\endif

select :applied < 1 as due \gset
\if :due
    \echo applying 0001_schema.sql
    \ir 0001_schema.sql
\endif

select :applied < 2 as due \gset
\if :due
    \echo applying 0002_conversations.sql
    \ir 0002_conversations.sql
\endif

select :applied < 3 as due \gset
\if :due
    \echo applying 0003_memories.sql
    \ir 0003_memories.sql
\endif

select :applied < 4 as due \gset
\if :due
    \echo applying 0004_key_values.sql
    \ir 0004_key_values.sql
\endif
commit;
\echo the schema is up to date

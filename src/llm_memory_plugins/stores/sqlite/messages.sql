-- Indexes are named where the planner, knowing nothing of how long a session is, might walk all of it instead.

-- name: sessions_named
select pk, user_id from sessions where session_id = :session_id and (:user_id is null or user_id = :user_id) limit 2

-- name: begin_session
insert into sessions (user_id, session_id) values (:user_id, :session_id) returning pk

-- name: session
select pk, user_id, session_id, last_seq, message_count, turn_count, tokens, first_at, last_at, tokens_ever
from sessions where pk = :pk

-- name: known
select * from messages where session_pk = :pk and id = :id

-- name: insert
insert into messages (session_pk, seq, id, role, name, content, created_at, tokens, tokenizer, tokens_ever, extra)
values (:pk, :seq, :id, :role, :name, :content, :created_at, :tokens, :tokenizer, :tokens_ever, :extra)

-- name: count_up
update sessions set
    last_seq = :last_seq, tokens_ever = :tokens_ever, message_count = message_count + :messages,
    turn_count = turn_count + :turns, tokens = tokens + :tokens,
    first_at = min(coalesce(first_at, :first_at), :first_at), last_at = max(coalesce(last_at, :last_at), :last_at)
where pk = :pk
returning pk, user_id, session_id, last_seq, message_count, turn_count, tokens, first_at, last_at, tokens_ever

-- name: start_by_turns
select min(seq) from (
    select seq from messages indexed by messages_turns
    where session_pk = :pk and role = 'user' order by seq desc limit :size)

-- name: backwards
select seq, tokens from messages where session_pk = :pk and role <> 'system' order by seq desc

-- name: start_of_group
select seq from messages where session_pk = :pk and seq <= :start and role <> 'tool' order by seq desc limit 1

-- name: start_by_time
select min(+seq) from messages indexed by messages_times where session_pk = :pk and created_at >= :since

-- name: newest_turn
select max(seq) from messages indexed by messages_turns where session_pk = :pk and role = 'user'

-- name: from_seq
select * from messages where session_pk = :pk and seq >= :start order by seq

-- name: opening_before
select * from messages indexed by messages_turns
where session_pk = :pk and role = 'user' and seq < :start order by seq desc limit 1

-- name: system_before
select * from messages indexed by messages_systems
where session_pk = :pk and role = 'system' and seq < :start order by seq desc limit 1

-- name: page
select * from messages where session_pk = :pk and seq > :after order by seq limit :limit

-- name: list_of_name
select pk, user_id, session_id, last_seq, message_count, turn_count, tokens, first_at, last_at, tokens_ever
from sessions
where session_id = :session_id and (:user_id is null or user_id = :user_id)
  and (:after_user is null or (user_id, session_id) > (:after_user, :after_session))
order by user_id limit :limit

-- name: list_of_user
select pk, user_id, session_id, last_seq, message_count, turn_count, tokens, first_at, last_at, tokens_ever
from sessions
where user_id = :user_id and (:after_user is null or (user_id, session_id) > (:after_user, :after_session))
order by session_id limit :limit

-- name: list_all
select pk, user_id, session_id, last_seq, message_count, turn_count, tokens, first_at, last_at, tokens_ever
from sessions
where :after_user is null or (user_id, session_id) > (:after_user, :after_session)
order by user_id, session_id limit :limit

-- name: owners_of_session
select user_id from sessions where session_id = :session_id
union select user_id from records join corpora on corpora.pk = corpus_pk where session_id = :session_id limit 2

-- name: sessions_of
select pk, user_id, session_id, last_seq, message_count, turn_count, tokens, first_at, last_at, tokens_ever
from sessions
where (:user_id is null or user_id = :user_id) and (:session_id is null or session_id = :session_id)

-- name: delete_messages
delete from messages where session_pk in (
    select pk from sessions
    where (:user_id is null or user_id = :user_id) and (:session_id is null or session_id = :session_id))

-- name: delete_summaries
delete from summaries where session_pk in (
    select pk from sessions
    where (:user_id is null or user_id = :user_id) and (:session_id is null or session_id = :session_id))

-- name: delete_sessions
delete from sessions where (:user_id is null or user_id = :user_id) and (:session_id is null or session_id = :session_id)

-- name: expired_sessions
select pk, user_id, session_id, last_seq, message_count, turn_count, tokens, first_at, last_at, tokens_ever
from sessions
where first_at < :before and (:user_id is null or user_id = :user_id)

-- name: prune_messages
delete from messages where session_pk = :pk and created_at < :before

-- name: prune_summaries
delete from summaries where session_pk = :pk and not exists (
    select 1 from messages m
    where m.session_pk = summaries.session_pk and m.seq between summaries.from_seq and summaries.to_seq)

-- name: recount
update sessions set (message_count, turn_count, tokens, first_at, last_at) = (
    select count(*), coalesce(sum(role = 'user'), 0), coalesce(sum(tokens), 0), min(created_at), max(created_at)
    from messages where session_pk = :pk)
where pk = :pk
returning message_count

-- name: end_session
delete from sessions where pk = :pk

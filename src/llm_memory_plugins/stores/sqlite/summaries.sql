-- name: progress
select covered_seq, tokens_ever - covered_tokens from sessions where pk = :pk

-- name: top
select * from summaries where session_pk = :pk and rolled = 0

-- name: newest_leaves
select * from summaries where session_pk = :pk and level = 0 and rolled = 1 order by from_seq desc limit :limit

-- name: claim
update sessions set claim_holder = :holder, claim_until = :until
where pk = :pk and covered_seq = :after
  and (claim_holder is null or claim_holder = :holder or claim_until <= :now)

-- name: claimant
select claim_holder from sessions where pk = :pk

-- name: release
update sessions set claim_holder = null, claim_until = null where pk = :pk and claim_holder = :holder

-- name: cover
update sessions set covered_seq = :to_seq, covered_tokens = coalesce(
    (select tokens_ever from messages where session_pk = :pk and seq <= :to_seq order by seq desc limit 1), covered_tokens)
where pk = :pk and covered_seq = :from_seq - 1 and last_seq >= :to_seq
  and exists (select 1 from messages where session_pk = :pk and seq between :from_seq and :to_seq)

-- name: insert
insert into summaries
    (session_pk, level, from_seq, to_seq, lines, tokens, tokenizer, model, model_tokens, created_at)
values (:pk, :level, :from_seq, :to_seq, :lines, :tokens, :tokenizer, :model, :model_tokens, :created_at)

-- name: children
select min(from_seq), max(to_seq), count(*) from summaries
where session_pk = :pk and level = :level - 1 and rolled = 0 and from_seq >= :from_seq and to_seq <= :to_seq

-- name: roll
update summaries set rolled = 1
where session_pk = :pk and level = :level - 1 and from_seq >= :from_seq and to_seq <= :to_seq

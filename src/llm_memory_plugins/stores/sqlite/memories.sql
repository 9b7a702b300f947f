-- Rows of a corpus are found by the range of their numbers, see schema/0003_memories.sql.

-- name: corpus
select pk, last from corpora where user_id = :user_id

-- name: begin_corpus
insert into corpora (user_id, last) values (:user_id, 0) returning pk

-- name: count_to
update corpora set last = :last where pk = :pk

-- name: corpora
select pk, last from corpora where :user_id is null or user_id = :user_id

-- name: existing
select pk from corpora where pk in (select value from json_each(:pks))

-- name: is_empty
select not exists (select 1 from records where corpus_pk = :pk)

-- name: known
select pk, corpus_pk, id, revision, created_at, session_id, position, first_part, parts, importance, source, role, name,
    tokenizer, metadata, content
from records where corpus_pk = :pk and id in (select value from json_each(:ids))

-- name: known_parts
select r.pk, p.pk, p.start, p.stop, (select group_concat(embedder_pk) from vectors where part_pk = p.pk)
from json_each(:pks) cross join records r on r.pk = value
cross join parts p on p.pk between r.first_part and r.first_part + r.parts - 1
order by p.pk

-- name: next_position
select position + parts from records where session_id = :session_id and corpus_pk = :pk order by position desc limit 1

-- name: remove_vectors
delete from vectors where part_pk between ? and ?

-- name: remove_parts
delete from parts where pk between ? and ?

-- name: remove_record
delete from records where pk = ?

-- name: add_record
insert into records values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: add_part
insert into parts values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: add_vector
insert into vectors values (?, ?, ?, ?)

-- name: no_longer_waiting
update parts set waiting = 0 where pk = ?

-- name: add_change
insert into record_changes values (?, ?)

-- name: forget_changes
delete from record_changes where pk > :first and pk <= :last

-- name: embedder
select pk, dimensions from embedders where identity = :identity

-- name: add_embedder
insert into embedders (identity, dimensions) values (:identity, :dimensions) returning pk, dimensions

-- name: delete_vectors
delete from vectors where part_pk in (
    select p.pk from json_each(:pks) cross join records r on r.pk = value
    cross join parts p on p.pk between r.first_part and r.first_part + r.parts - 1)

-- name: delete_parts
delete from parts where pk in (
    select p.pk from json_each(:pks) cross join records r on r.pk = value
    cross join parts p on p.pk between r.first_part and r.first_part + r.parts - 1)

-- name: delete_records
delete from records where pk in (select value from json_each(:pks))

-- name: erase_vectors
delete from vectors where pk > :first and pk <= :last

-- name: erase_parts
delete from parts where pk > :first and pk <= :last

-- name: erase_records
delete from records where pk > :first and pk <= :last

-- name: erase_record_changes
delete from record_changes where pk > :first and pk <= :last

-- name: erase_corpora
delete from corpora where pk = :pk

-- name: count_erasure
update erasures set count = count + 1

-- name: erasures
select count from erasures

-- name: records_of_session
select pk from records where session_id = :session_id and corpus_pk = :pk

-- name: choose
select pk, metadata from records
where corpus_pk = :pk and id > :after and (:source is null or source = :source)
  and (:since is null or created_at >= :since) and (:until is null or created_at < :until)
order by id

-- name: choose_ids
select pk, metadata from records
where corpus_pk = :pk and id in (select value from json_each(:ids)) and id > :after
  and (:session_id is null or session_id = :session_id) and (:source is null or source = :source)
  and (:since is null or created_at >= :since) and (:until is null or created_at < :until)
order by id

-- name: choose_of_session
select pk, metadata from records indexed by records_of_session
where session_id = :session_id and corpus_pk = :pk and id > :after and (:source is null or source = :source)
  and (:since is null or created_at >= :since) and (:until is null or created_at < :until)
order by id

-- name: count_all
select count(*) from records where corpus_pk = :pk

-- name: records
select pk, corpus_pk, id, revision, created_at, session_id, position, first_part, parts, importance, source, role, name,
    tokenizer, metadata, content
from records where pk in (select value from json_each(:pks)) order by id

-- name: rows
select p.pk, case r.parts when 1 then r.content else substr(r.content, p.start + 1, p.stop - p.start) end, r.id, r.tokenizer,
    r.revision, r.session_id, r.source, r.role, r.name, r.metadata, case when r.parts > 1 then p.number end, p.start, p.stop
from json_each(:pks) cross join parts p on p.pk = value cross join records r on r.pk = p.record_pk

-- name: new_parts
select p.pk, record_pk, length, tokens, telling, thread, position + number, source, speaker, created_at, importance,
    terms, counts
from parts p cross join records r on r.pk = p.record_pk
where p.pk > :seen and p.pk <= :last

-- name: changed_parts
select p.pk, record_pk, length, tokens, telling, thread, position + number, source, speaker, created_at, importance,
    terms, counts
from json_each(:changed) cross join records r on r.pk = value
cross join parts p on p.pk between r.first_part and r.first_part + r.parts - 1
where p.pk <= :seen

-- name: new_vectors
select part_pk, embedder_pk, vector from vectors where pk > :seen and pk <= :last

-- name: changed_vectors
select part_pk, embedder_pk, vector
from json_each(:changed) cross join records r on r.pk = value
cross join vectors v on part_pk between first_part and first_part + parts - 1
where v.pk <= :seen

-- name: embedders
select pk, identity from embedders

-- name: changes
select distinct record_pk from record_changes where pk > :seen and pk <= :last

-- name: metadata
select pk, metadata from records where pk in (select value from json_each(:pks))

-- name: named
select pk from records where corpus_pk = :pk and id in (select value from json_each(:ids))

-- name: totals
select (select count(*) from records where corpus_pk between :from_pk and :to_pk),
    (select count(*) from parts where pk >= :from_pk << 36 and pk < (:to_pk + 1) << 36),
    (select count(*) from parts where waiting = 1 and pk >= :from_pk << 36 and pk < (:to_pk + 1) << 36)

-- name: embedded
select identity, parts from embedders join (
    select embedder_pk, count(*) as parts from vectors
    where part_pk >= :from_pk << 36 and part_pk < (:to_pk + 1) << 36 group by embedder_pk)
on embedder_pk = pk

-- name: waiting
select c.user_id, p.pk, case r.parts when 1 then r.content else substr(r.content, p.start + 1, p.stop - p.start) end
from corpora c
cross join parts p on p.pk <= c.last
  and p.pk > max(c.pk << 36, case c.user_id when :after_user then :after_part else 0 end)
cross join records r on r.pk = p.record_pk
where (:user_id is null or c.user_id = :user_id) and c.user_id >= :after_user and p.waiting = 1
order by c.user_id, p.pk limit :limit

-- name: lacking
select c.user_id, p.pk, case r.parts when 1 then r.content else substr(r.content, p.start + 1, p.stop - p.start) end
from corpora c
cross join parts p on p.pk <= c.last
  and p.pk > max(c.pk << 36, case c.user_id when :after_user then :after_part else 0 end)
cross join records r on r.pk = p.record_pk
where (:user_id is null or c.user_id = :user_id) and c.user_id >= :after_user
  and not exists (select 1 from vectors v join embedders e on e.pk = v.embedder_pk
                  where v.part_pk = p.pk and e.identity = :embedder)
order by c.user_id, p.pk limit :limit

-- name: fillable
select pk from parts where pk in (select value from json_each(:pks)) and pk > :first and pk <= :last
  and not exists (select 1 from vectors v join embedders e on e.pk = v.embedder_pk
                  where v.part_pk = parts.pk and e.identity = :embedder)

-- name: retire
delete from vectors
where part_pk > :first and part_pk <= :last
  and embedder_pk <> :embedder_pk
  and exists (select 1 from vectors v where v.part_pk = vectors.part_pk and v.embedder_pk = :embedder_pk)

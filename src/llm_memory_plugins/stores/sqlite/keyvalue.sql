-- name: read
select key, body, encoding, version, created_at, updated_at, expires_at from key_values
where user_id = :user_id and namespace = :namespace and key in (select value from json_each(:keys))
  and (expires_at is null or expires_at > :now)

-- name: newest
select key, body, encoding, version, created_at, updated_at, expires_at
from key_values indexed by key_values_newest
where user_id = :user_id and namespace = :namespace and (expires_at is null or expires_at > :now)
order by version desc limit :limit

-- name: held
select version, created_at, expires_at from key_values
where user_id = :user_id and namespace = :namespace and key = :key

-- name: write
insert or replace into key_values (user_id, namespace, key, body, encoding, created_at, updated_at, expires_at)
values (:user_id, :namespace, :key, :body, :encoding, :created_at, :now, :expires_at)
returning version

-- name: remove
delete from key_values
where user_id = :user_id and namespace = :namespace and key in (select value from json_each(:keys))
returning key, version, expires_at is null or expires_at > :now

-- name: remove_all
delete from key_values where user_id = :user_id and (:namespace is null or namespace = :namespace)
returning expires_at is null or expires_at > :now

-- name: keys
select key from key_values
where user_id = :user_id and namespace = :namespace and key >= :prefix and (:until is null or key < :until)
  and (:after is null or key > :after) and (expires_at is null or expires_at > :now)
order by key limit :limit

-- name: prune
delete from key_values where version in (
    select version from key_values indexed by key_values_expiry
    where expires_at <= :now and (:user_id is null or user_id = :user_id) limit :limit)

-- name: erase_of
delete from key_values where user_id = :user_id

//! What is asked of the database. Each change is one statement, so that it is one round trip and whole by itself; its
//! conditions are judged again on the newest row where another request changed it first.

/// A challenge that expired counts as unknown.
pub(super) const USE_CHALLENGE: &str = "INSERT INTO challenges AS known (nonce, expires) VALUES ($1, $2) \
    ON CONFLICT (nonce) DO UPDATE SET expires = excluded.expires WHERE known.expires < $3";
/// The same of many, none twice; gives those that were fresh.
pub(super) const USE_CHALLENGES: &str = "INSERT INTO challenges AS known (nonce, expires) \
    SELECT nonce, expires FROM unnest($1::bytea[], $2::bigint[]) AS new (nonce, expires) ORDER BY nonce \
    ON CONFLICT (nonce) DO UPDATE SET expires = excluded.expires WHERE known.expires < $3 RETURNING nonce";
pub(super) const FORGET_CHALLENGES: &str = "DELETE FROM challenges WHERE nonce IN \
    (SELECT nonce FROM challenges WHERE expires < $1 ORDER BY expires LIMIT $2 FOR UPDATE SKIP LOCKED)";

pub(super) const HISTORY: &str = "SELECT history FROM histories WHERE guest = $1";
pub(super) const RECORDS: &str = "SELECT record FROM records WHERE guest = $1 AND place >= $2 ORDER BY place LIMIT $3";
pub(super) const RECEIPTS_AFTER: &str =
    "SELECT receipt FROM receipts WHERE guest = $1 AND count > $2 ORDER BY count LIMIT $3";
/// $1 guest, $2 records held, $3 count, $4 history, $5 records, $6 receipt. A history once there stays.
pub(super) const APPEND: &str = "WITH moved AS ( \
        INSERT INTO histories AS held (guest, count, history) \
        SELECT $1::bytea, $3::bigint, $4::bytea WHERE $2::bigint = 0 OR EXISTS (SELECT 1 FROM histories WHERE guest = $1) \
        ON CONFLICT (guest) DO UPDATE SET count = excluded.count, history = excluded.history WHERE held.count = $2 \
        RETURNING guest), \
    added AS ( \
        INSERT INTO records (guest, place, record) \
        SELECT moved.guest, $2::bigint + new.place - 1, new.record \
        FROM moved, unnest($5::bytea[]) WITH ORDINALITY AS new (record, place)) \
    INSERT INTO receipts (guest, count, receipt) SELECT guest, $3::bigint, $6::text FROM moved";

pub(super) const HAS_ROOM_FOR_ALARM: &str = "SELECT \
    (SELECT count(*) FROM alarms WHERE guest = $1) < $2 AND \
    (SELECT count(*) FROM (SELECT 1 FROM alarms LIMIT $3) AS all_of_them) < $3 AND NOT EXISTS \
    (SELECT 1 FROM alarms WHERE guest = $1 AND code = $4 AND count = $5::text::numeric AND head = $6)";
pub(super) const LOCK_ALARMS: &str = "LOCK TABLE alarms IN SHARE ROW EXCLUSIVE MODE";
pub(super) const RAISE_ALARM: &str =
    "INSERT INTO alarms (guest, code, count, head, alarm) VALUES ($1, $2, $3::text::numeric, $4, $5)";
pub(super) const ALARMS: &str = "SELECT alarm FROM alarms ORDER BY guest, code, count, head";

pub(super) const MARK: &str = "SELECT version::text, payload FROM marks WHERE kind = $1 AND series = $2";
/// $1 kind, $2 series, $3 version, $4 payload.
pub(super) const FIRST_MARK: &str = "INSERT INTO marks (kind, series, version, payload) \
    VALUES ($1, $2, $3::text::numeric, $4) ON CONFLICT DO NOTHING";
/// And $5 version, $6 payload of the mark it is raised from.
pub(super) const NEXT_MARK: &str = "UPDATE marks SET version = $3::text::numeric, payload = $4 \
    WHERE kind = $1 AND series = $2 AND version = $5::text::numeric AND payload = $6";

pub(super) const REVOKE: &str = "INSERT INTO revoked (issuer, payload) \
    SELECT $1::bytea, payload FROM unnest($2::bytea[]) AS new (payload) ON CONFLICT DO NOTHING";
pub(super) const IS_REVOKED: &str = "SELECT EXISTS (SELECT 1 FROM revoked WHERE issuer = $1 AND payload = $2)";

pub(super) const PASSED: &str =
    "SELECT EXISTS (SELECT 1 FROM passes WHERE guest = $1 AND seq = $2::text::numeric AND golden = $3)";
/// Keeps a decision: $1 id, $2 record, and for one that passed $3 guest, $4 launch number, $5 golden value.
macro_rules! decide {
    ($condition:expr) => {
        concat!(
            "WITH allowed AS (",
            $condition,
            "), passed AS ( \
                INSERT INTO passes (guest, seq, golden) SELECT $3::bytea, $4::text::numeric, $5::bytea \
                FROM allowed WHERE $5::bytea IS NOT NULL ON CONFLICT DO NOTHING) \
            INSERT INTO verdicts (id, record) SELECT $1::text, $2::bytea FROM allowed \
            ON CONFLICT (id) DO UPDATE SET record = excluded.record"
        )
    };
}
pub(super) const DECIDE: &str = decide!("SELECT 1");
/// And raises a mark, $6 series, $7 version, $8 payload: the first of its series.
pub(super) const DECIDE_FIRST: &str = decide!(
    "INSERT INTO marks (kind, series, version, payload) VALUES ('golden', $6, $7::text::numeric, $8) \
    ON CONFLICT DO NOTHING RETURNING 1"
);
/// Or from the mark of $9 version, $10 payload.
pub(super) const DECIDE_NEXT: &str = decide!(
    "UPDATE marks SET version = $7::text::numeric, payload = $8 WHERE kind = 'golden' AND series = $6 \
    AND version = $9::text::numeric AND payload = $10 RETURNING 1"
);
pub(super) const FORGET_VERDICTS: &str = "DELETE FROM verdicts WHERE number <= \
    (SELECT number FROM verdicts ORDER BY number DESC OFFSET $1 LIMIT 1)";
pub(super) const VERDICT: &str = "SELECT record FROM verdicts WHERE id = $1";

pub(super) const KEEP_REFUSAL: &str = "INSERT INTO refusals (id, record) VALUES ($1, $2)";
pub(super) const FORGET_REFUSALS: &str = "DELETE FROM refusals WHERE number <= \
    (SELECT number FROM refusals ORDER BY number DESC OFFSET $1 LIMIT 1)";
pub(super) const REFUSAL: &str = "SELECT record FROM refusals WHERE id = $1";

pub(super) const PUT_RESOURCE: &str = "INSERT INTO resources (path, sealed) VALUES ($1, $2) \
    ON CONFLICT (path) DO UPDATE SET sealed = excluded.sealed";
pub(super) const DELETE_RESOURCE: &str = "DELETE FROM resources WHERE path = $1";
pub(super) const RESOURCE: &str = "SELECT sealed FROM resources WHERE path = $1";

pub(super) const AUDIT_TAIL: &str = "SELECT size, frontier FROM audit_tail";
/// $1 size, $2 entries, $3 frontier. Gives the number of tails moved.
pub(super) const APPEND_AUDIT: &str = "WITH moved AS ( \
        UPDATE audit_tail SET size = size + cardinality($2::bytea[]), frontier = $3 WHERE size = $1 RETURNING 1), \
    added AS ( \
        INSERT INTO audit (place, entry) SELECT $1::bigint + new.place - 1, new.entry \
        FROM moved, unnest($2::bytea[]) WITH ORDINALITY AS new (entry, place)) \
    SELECT count(*) FROM moved";
pub(super) const AUDIT_ENTRIES: &str =
    "SELECT place, entry FROM audit WHERE place >= $1 AND place < $2 ORDER BY place LIMIT $3";

pub(super) const PUT_WRAPPED_KEY: &str = "UPDATE data_key SET wrapped = $1";

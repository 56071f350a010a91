-- The one row: the data key, wrapped by the store key.
CREATE TABLE data_key (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    wrapped bytea NOT NULL
);
-- Challenges that were used, for as long as one of them could be shown again.
CREATE TABLE challenges (
    nonce   bytea PRIMARY KEY,
    expires bigint NOT NULL
);
CREATE INDEX challenges_expires ON challenges (expires);
-- count is what the history's JSON says too: changes are conditional on it.
CREATE TABLE histories (
    guest   bytea PRIMARY KEY,
    count   bigint NOT NULL,
    history bytea NOT NULL
);
CREATE TABLE records (
    guest   bytea NOT NULL,
    place   bigint NOT NULL,
    record  bytea NOT NULL,
    PRIMARY KEY (guest, place)
);
CREATE TABLE receipts (
    guest   bytea NOT NULL,
    count   bigint NOT NULL,
    receipt text NOT NULL,
    PRIMARY KEY (guest, count)
);
-- kind: golden, reference. A version has 64 bits without a sign.
CREATE TABLE marks (
    kind    text NOT NULL,
    series  bytea NOT NULL,
    version numeric(20) NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (kind, series)
);
CREATE TABLE revoked (
    issuer  bytea NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (issuer, payload)
);
CREATE TABLE passes (
    guest   bytea NOT NULL,
    seq     numeric(20) NOT NULL,
    golden  bytea NOT NULL,
    PRIMARY KEY (guest, seq, golden)
);
-- Sealed by the data key.
CREATE TABLE resources (
    path    text PRIMARY KEY,
    sealed  bytea NOT NULL
);
CREATE TABLE verdicts (
    id      text PRIMARY KEY,
    number  bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    record  bytea NOT NULL
);
CREATE TABLE refusals (
    id      text PRIMARY KEY,
    number  bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    record  bytea NOT NULL
);
CREATE TABLE alarms (
    guest   bytea NOT NULL,
    code    text NOT NULL,
    count   numeric(20) NOT NULL,
    head    text NOT NULL,
    alarm   bytea NOT NULL,
    PRIMARY KEY (guest, code, count, head)
);
CREATE TABLE audit (
    place   bigint PRIMARY KEY,
    entry   bytea NOT NULL
);
-- The one row.
CREATE TABLE audit_tail (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    size     bigint NOT NULL,
    frontier bytea NOT NULL
);
INSERT INTO audit_tail (size, frontier) VALUES (0, '');

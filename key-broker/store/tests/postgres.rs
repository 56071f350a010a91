//! The store in a database: the cases of every store, and what only a server can show.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod cases;
mod server;

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use broker_store::{LocalKey, PostgresOptions, PostgresStore, Store, StoreError};
use protocols::time::Timestamp;

use cases::{Medium, challenge, store_key};
use server::Postgres;

/// One for all tests of this program.
static SERVER: LazyLock<Postgres> = LazyLock::new(|| Postgres::start(&[]));

struct Database(String);

impl Database {
    fn new() -> Self {
        Self(SERVER.database())
    }
}

#[async_trait]
impl Medium for Database {
    async fn open_with(&self, key: &LocalKey) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(PostgresStore::open(&SERVER.options(&self.0), key).await?))
    }

    async fn raw(&self) -> Vec<u8> {
        SERVER.raw(&self.0)
    }
}

conformance!(Database::new());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_what_is_stored_and_make_the_tables_once() {
    let database = Database::new();
    let (one, two, three) = tokio::join!(database.open(), database.open(), database.open());
    assert!(one.use_challenge(challenge([1; 32], Timestamp(100)), Timestamp(50)).await.unwrap());
    assert!(!two.use_challenge(challenge([1; 32], Timestamp(100)), Timestamp(50)).await.unwrap());
    one.put_resource("default/key/one".parse().unwrap(), b"secret".to_vec()).await.unwrap();
    assert_eq!(three.resource("default/key/one".parse().unwrap()).await.unwrap().unwrap(), b"secret");
    // A backup is not restored beneath those who serve.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("backup");
    broker_store::backup(&*one, &file, Timestamp(1)).await.unwrap();
    let other = Database::new();
    let (serving, empty) = (other.open().await, other.open().await);
    let refused = broker_store::restore(empty, &file, &store_key()).await;
    assert!(matches!(refused, Err(broker_store::BackupError::Store(StoreError::InUse))), "{refused:?}");
    drop(serving);
    broker_store::restore(other.open().await, &file, &store_key()).await.unwrap();
    let restored = other.open().await;
    assert_eq!(restored.resource("default/key/one".parse().unwrap()).await.unwrap().unwrap(), b"secret");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_is_an_error_and_the_next_request_makes_another() {
    let database = Database::new();
    let store = database.open().await;
    store.put_resource("default/key/one".parse().unwrap(), vec![1]).await.unwrap();
    let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
        WHERE application_name = 'key-broker' AND datname = current_database()";
    assert_ne!(SERVER.run(&database.0, ended), "0");
    let mut errors = 0;
    while let Err(error) = store.resource("default/key/one".parse().unwrap()).await {
        assert!(matches!(error, StoreError::Io(_)), "{error:?}");
        errors += 1;
        assert!(errors < 10, "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_not_given_back_ends_a_request_in_an_error() {
    let database = Database::new();
    let store = database.open().await;
    let name = database.0.clone();
    let locks = std::thread::spawn(move || {
        SERVER.run(&name, "BEGIN; LOCK TABLE resources IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(30); COMMIT")
    });
    let held = "SELECT count(*) FROM pg_locks WHERE relation = 'resources'::regclass AND mode = 'AccessExclusiveLock'";
    while SERVER.run(&database.0, held) == "0" {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let waited = store.put_resource("default/key/one".parse().unwrap(), vec![1]).await;
    assert!(matches!(&waited, Err(StoreError::Io(_))), "{waited:?}");
    // Everything else goes on.
    assert!(store.use_challenge(challenge([1; 32], Timestamp(100)), Timestamp(50)).await.unwrap());
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 'resources'::regclass AND granted";
    let _ = SERVER.run(&database.0, end);
    assert!(locks.join().is_err(), "the lock was held all the while");
    store.put_resource("default/key/one".parse().unwrap(), vec![1]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_a_later_release_is_left_alone() {
    let database = Database::new();
    drop(database.open().await);
    SERVER.run(&database.0, "UPDATE tcl_schema SET version = version + 1");
    assert!(matches!(database.open_with(&store_key()).await, Err(StoreError::Corrupt(_))));
}

fn openssl(folder: &Path, arguments: &[&str]) {
    let ran = Command::new("openssl").current_dir(folder).args(arguments).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// Two roots, and a server's key and certificate for `localhost` by the first.
fn certificates(folder: &Path) {
    let new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    for name in ["root", "stranger"] {
        let (key, certificate, subject) = (format!("{name}.key"), format!("{name}.pem"), format!("/CN={name}"));
        let made = ["-days", "2", "-subj", &subject, "-keyout", &key, "-out", &certificate];
        openssl(folder, &[&["req", "-x509"], &new[..], &made[..]].concat());
    }
    let asked = ["-subj", "/CN=db", "-keyout", "server.key", "-out", "server.csr"];
    openssl(folder, &[&["req", "-new"], &new[..], &asked[..]].concat());
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost\n").unwrap();
    let signed = ["x509", "-req", "-in", "server.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial"];
    openssl(folder, &[&signed[..], &["-days", "2", "-extfile", "names", "-out", "server.pem"]].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tcp_the_server_must_show_a_certificate_of_the_configured_root() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let path = |name: &str| folder.path().join(name);
    // TCP is for TLS and a password alone.
    let hba = "local all all trust\nhostssl all asker 127.0.0.1/32 scram-sha-256\n";
    std::fs::write(path("hba"), hba).unwrap();
    for file in [folder.path().to_owned(), path("server.key"), path("server.pem"), path("hba")] {
        server::own(&file);
    }
    let settings = [
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", path("server.pem").display()),
        format!("ssl_key_file={}", path("server.key").display()),
        format!("hba_file={}", path("hba").display()),
    ];
    let server = Postgres::start(&settings.iter().map(String::as_str).collect::<Vec<_>>());
    server.run("postgres", "CREATE ROLE asker LOGIN PASSWORD 'correct horse'");
    server.run("postgres", "CREATE DATABASE kept OWNER asker");
    let right = PostgresOptions {
        host: "localhost".into(),
        user: "asker".into(),
        password: Some("correct horse".to_owned().into()),
        roots: Some(std::fs::read(path("root.pem")).unwrap()),
        ..server.options("kept")
    };
    let store = PostgresStore::open(&right, &store_key()).await.unwrap();
    assert!(store.use_challenge(challenge([1; 32], Timestamp(100)), Timestamp(50)).await.unwrap());
    let stranger = Some(std::fs::read(path("stranger.pem")).unwrap());
    for (wrong, what) in [
        (PostgresOptions { roots: stranger, ..right.clone() }, "another root"),
        (PostgresOptions { roots: None, ..right.clone() }, "no TLS"),
        (PostgresOptions { roots: Some(b"none".to_vec()), ..right.clone() }, "no root"),
        (PostgresOptions { host: "127.0.0.1".into(), ..right.clone() }, "another name"),
        (PostgresOptions { password: Some("wrong".to_owned().into()), ..right.clone() }, "another password"),
    ] {
        let refused = PostgresStore::open(&wrong, &store_key()).await;
        assert!(matches!(refused, Err(StoreError::Io(_))), "{what}: {refused:?}");
        assert!(!format!("{refused:?}").contains("horse"), "{what}");
    }
}

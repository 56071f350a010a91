//! Debian's PostgreSQL server, started for one test program and gone with it.

#![allow(dead_code)] // shared by tests, none of which needs all of it

use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use broker_store::PostgresOptions;

/// The superuser, whom nobody asks for a password.
const SUPERUSER: &str = "postgres";
/// Runs the server until standard input ends, which it does with this process, however that ends.
const KEEPER: &str = r#"setpriv --reuid=nobody --regid=nogroup --clear-groups -- "$@" >"$LOG" 2>&1 &
read -r _
kill -QUIT $!
wait
rm -rf "$FOLDER""#;

/// A running server, with a socket and a TCP port.
#[derive(Debug)]
pub(crate) struct Postgres {
    folder: PathBuf,
    programs: PathBuf,
    port: u16,
    databases: AtomicU32,
    keeper: Child,
    alive: Option<ChildStdin>,
}

impl Postgres {
    /// A new server. `settings` are its parameters beside those for a small and quick one.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let programs = programs();
        let folder = tempfile::Builder::new().prefix("tcl-postgres-").tempdir().unwrap().keep();
        own(&folder);
        let data = folder.join("data");
        let mut initdb = Command::new("setpriv");
        initdb.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]).arg(programs.join("initdb"));
        initdb.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "-U", SUPERUSER, "-D"]).arg(&data);
        let made = initdb.current_dir("/").output().unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        // Asked for and given back at once: nobody else is likely to get it in between.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "sh"]).arg(programs.join("postgres")).arg("-D").arg(&data);
        keeper.arg("-k").arg(&folder).args(["-p", &port.to_string()]);
        let parameters = ["listen_addresses=127.0.0.1", "fsync=off", "shared_buffers=16MB", "max_connections=120"];
        for parameter in parameters.iter().chain(settings) {
            keeper.args(["-c", parameter]);
        }
        keeper.env("LOG", folder.join("log")).env("FOLDER", &folder);
        let mut keeper = keeper.current_dir("/").stdin(Stdio::piped()).spawn().unwrap();
        let alive = keeper.stdin.take();
        let server = Self { folder, programs, port, databases: AtomicU32::new(0), keeper, alive };
        let until = Instant::now() + Duration::from_secs(60);
        while !server.ask("postgres", "SELECT 1").status.success() {
            assert!(
                Instant::now() < until,
                "{}",
                std::fs::read_to_string(server.folder.join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// A new, empty database of that server.
    pub(crate) fn database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.run("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// Its TCP port on the loopback address.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The directory of its socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.folder
    }

    /// The superuser's name.
    pub(crate) fn user(&self) -> &'static str {
        SUPERUSER
    }

    /// How to reach one of its databases by the socket.
    pub(crate) fn options(&self, database: &str) -> PostgresOptions {
        PostgresOptions {
            host: self.folder.display().to_string(),
            port: self.port,
            user: SUPERUSER.to_owned(),
            database: database.to_owned(),
            password: None,
            roots: None,
            connections: 4,
        }
    }

    /// What a statement answers, or that it fails.
    pub(crate) fn ask(&self, database: &str, statement: &str) -> std::process::Output {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", SUPERUSER, "-d", database, "-p", &self.port.to_string()]);
        psql.arg("-h").arg(&self.folder).args(["-c", statement]).output().unwrap()
    }

    /// What a statement answers.
    pub(crate) fn run(&self, database: &str, statement: &str) -> String {
        let answered = self.ask(database, statement);
        assert!(answered.status.success(), "{statement}: {}", String::from_utf8_lossy(&answered.stderr));
        String::from_utf8(answered.stdout).unwrap().trim().to_owned()
    }

    /// Every byte of a database, and of the write-ahead log, that lies on the disk.
    pub(crate) fn raw(&self, database: &str) -> Vec<u8> {
        self.run(database, "CHECKPOINT");
        let oid = self.run(database, "SELECT oid FROM pg_database WHERE datname = current_database()");
        let mut bytes = Vec::new();
        for folder in [self.folder.join("data/base").join(oid), self.folder.join("data/pg_wal")] {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    bytes.extend(std::fs::read(path).unwrap());
                }
            }
        }
        bytes
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.alive = None;
        let _ = self.keeper.wait();
    }
}

/// Gives a folder to the user who runs the server, which refuses to be root.
pub(crate) fn own(path: &Path) {
    assert!(Command::new("chown").arg("nobody:nogroup").arg(path).status().unwrap().success());
}

fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<PathBuf> = versions.map(|entry| entry.unwrap().path().join("bin")).collect();
    found.retain(|folder| folder.join("initdb").exists());
    found.sort();
    found.pop().unwrap_or_else(|| panic!("no PostgreSQL server: apt-get install postgresql"))
}

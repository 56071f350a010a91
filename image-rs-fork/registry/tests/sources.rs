//! Mirrors, remapping, proxies, helpers, retries and resumes: what happens between a reference and its bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

#[path = "../../tests/support/docker_registry.rs"]
mod docker_registry;
#[path = "../../tests/support/scripted.rs"]
mod scripted;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use docker_registry::{DockerRegistry, USER};
use protocols::digest::Sha256Digest;
use protocols::reason;
use registry::{
    Event, HttpRegistry, RegistriesConf, Registry as _, RegistryConfig, RegistryError, RegistryEvents,
    RegistryPush as _, Repository, Target, oci,
};
use scripted::{Answer, Request, Scripted, http};

#[derive(Debug, Default)]
struct Heard(Mutex<Vec<Event>>);

impl RegistryEvents for Heard {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

impl Heard {
    fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|event| wanted(event)).count()
    }

    fn mirror_failures(&self) -> usize {
        self.count(|event| matches!(event, Event::MirrorFailed { .. }))
    }
}

fn listening(config: RegistryConfig) -> (HttpRegistry, Arc<Heard>) {
    let heard = Arc::<Heard>::default();
    (HttpRegistry::with_events(config, Arc::clone(&heard) as Arc<dyn RegistryEvents>).unwrap(), heard)
}

fn config() -> RegistryConfig {
    RegistryConfig { stall_seconds: 1, request_seconds: 5, connect_seconds: 2, retry_seconds: 5, ..Default::default() }
}

fn plain(servers: &[&Scripted]) -> RegistryConfig {
    RegistryConfig { plain_http: servers.iter().map(|server| server.host().to_owned()).collect(), ..config() }
}

fn tag() -> Target {
    Target::Tag("v1".to_owned())
}

fn app(host: &str) -> Repository {
    format!("{host}/app").parse().unwrap()
}

/// A client for `r.example`, which is at `location` and has `mirrors`, all over plain HTTP.
fn mirrored(location: &str, mirrors: &[&str], from: &str) -> (HttpRegistry, Arc<Heard>) {
    let mut text = format!("[[registry]]\nprefix = \"r.example\"\nlocation = \"{location}\"\ninsecure = true\n");
    for mirror in mirrors {
        text.push_str(&format!(
            "[[registry.mirror]]\nlocation = \"{mirror}\"\ninsecure = true\npull-from-mirror = \"{from}\"\n"
        ));
    }
    listening(RegistryConfig { registries_conf: RegistriesConf::parse(&text).unwrap(), ..config() })
}

async fn push(server: &DockerRegistry, content: &'static [u8]) -> Sha256Digest {
    let client = HttpRegistry::new(RegistryConfig { plain_http: vec![server.host()], ..config() }).unwrap();
    let repository = app(&server.host());
    let layer = client.push_blob(&repository, "l", Bytes::from_static(content)).await.unwrap();
    client.push_blob(&repository, oci::EMPTY, Bytes::from_static(oci::EMPTY_BLOB)).await.unwrap();
    let manifest = Bytes::from(oci::artifact_manifest("t", &layer, None).unwrap());
    let digest = Sha256Digest::of(&manifest);
    client.push_manifest(&repository, &tag(), oci::MANIFEST, manifest).await.unwrap();
    digest
}

async fn read(client: &HttpRegistry, repository: &Repository, blob: &[u8]) -> Result<Vec<u8>, RegistryError> {
    let mut stream = client.blob(repository, &Sha256Digest::of(blob), blob.len() as u64).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[tokio::test]
async fn a_mirror_serves_when_it_can_and_the_location_when_not() {
    let (mirror, mut location) = (DockerRegistry::start(), DockerRegistry::start());
    let new = push(&location, b"layer").await;
    let old = push(&mirror, b"old layer").await;
    let repository = app("r.example");

    let (client, heard) = mirrored(&location.host(), &[&mirror.host()], "digest-only");
    assert_eq!(client.manifest(&repository, &tag()).await.unwrap().digest, new, "a tag is the location's");
    assert_eq!(client.manifest(&repository, &Target::Digest(old)).await.unwrap().digest, old, "from the mirror");
    assert_eq!(heard.mirror_failures(), 0);
    assert_eq!(client.manifest(&repository, &Target::Digest(new)).await.unwrap().digest, new);
    assert_eq!(read(&client, &repository, b"layer").await.unwrap(), b"layer");
    assert_eq!(heard.mirror_failures(), 2, "the mirror has neither");

    let (client, _) = mirrored(&location.host(), &[&mirror.host()], "all");
    assert_eq!(client.manifest(&repository, &tag()).await.unwrap().digest, old, "the entry lets the mirror say");
    location.stop();
    assert_eq!(read(&client, &repository, b"old layer").await.unwrap(), b"old layer");
    assert_eq!(read(&client, &repository, b"layer").await.unwrap_err().code(), reason::IMAGE_REGISTRY);
}

#[tokio::test]
async fn a_mirror_with_other_bytes_is_passed_over() {
    let mirror = Scripted::start(|_| http("200 OK", &[], b"{}"));
    let location = DockerRegistry::start();
    let digest = push(&location, b"layer").await;
    let (client, heard) = mirrored(&location.host(), &[mirror.host()], "digest-only");
    let found = client.manifest(&app("r.example"), &Target::Digest(digest)).await.unwrap();
    assert_eq!((found.digest, heard.mirror_failures()), (digest, 1));
}

#[tokio::test]
async fn a_mirror_without_referrers_is_no_answer() {
    let subject = Sha256Digest::of(b"subject");
    let mirror = Scripted::start(|_| http("404 x", &[], b""));
    let entry = format!(r#"{{"mediaType":"m","digest":"{subject}","size":1,"artifactType":"ours"}}"#);
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#);
    let location = Scripted::start(move |_| http("200 OK", &[], index.as_bytes()));
    let (client, _) = mirrored(location.host(), &[mirror.host()], "all");
    assert_eq!(client.referrers(&app("r.example"), &subject, "ours").await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_pushed_goes_to_the_location_and_what_is_blocked_nowhere() {
    let (mirror, location) = (Scripted::start(|_| http("500 x", &[], b"")), DockerRegistry::start());
    let (client, _) = mirrored(&location.host(), &[mirror.host()], "all");
    client.push_blob(&app("r.example"), "l", Bytes::from_static(b"pushed")).await.unwrap();
    assert!(mirror.requests().is_empty());
    assert!(location.blob_file(&Sha256Digest::of(b"pushed").hex()).exists());

    let conf = format!("[[registry]]\nprefix = \"{}/app\"\nblocked = true", location.host());
    let (client, _) = listening(RegistryConfig { registries_conf: RegistriesConf::parse(&conf).unwrap(), ..config() });
    let blocked = app(&location.host());
    assert_eq!(client.manifest(&blocked, &tag()).await.unwrap_err().code(), reason::IMAGE_BLOCKED);
    assert_eq!(read(&client, &blocked, b"x").await.unwrap_err().code(), reason::IMAGE_BLOCKED);
    let pushed = client.push_blob(&blocked, "l", Bytes::from_static(b"x")).await;
    assert_eq!(pushed.unwrap_err().code(), reason::IMAGE_BLOCKED);
}

/// Bytes that differ everywhere, so that a part in the wrong place is seen.
fn content() -> Vec<u8> {
    (0..300_000u32).flat_map(u32::to_le_bytes).collect()
}

fn offset(request: &Request) -> Option<usize> {
    request.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

/// The rest of `content` from the asked offset as an answer that breaks after `n` bytes.
fn part(content: &[u8], request: &Request, n: usize) -> Answer {
    let at = offset(request).unwrap_or(0);
    let rest = &content[at..];
    let head = if at == 0 {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", rest.len())
    } else {
        let (last, size) = (content.len() - 1, content.len());
        format!(
            "HTTP/1.1 206 Partial\r\nContent-Length: {}\r\nContent-Range: bytes {at}-{last}/{size}\r\n\r\n",
            rest.len()
        )
    };
    Answer::Bytes([head.as_bytes(), &rest[..n.min(rest.len())]].concat())
}

#[tokio::test]
async fn a_blob_that_breaks_again_and_again_goes_on_where_it_ended() {
    let blob = content();
    let served = blob.clone();
    let server = Scripted::start(move |request| part(&served, request, 200_000));
    let (client, heard) = listening(plain(&[&server]));
    assert_eq!(read(&client, &app(server.host()), &blob).await.unwrap(), blob);
    let asked: Vec<_> = server.requests().iter().map(offset).collect();
    assert_eq!(asked.len(), 6);
    assert!(asked.windows(2).all(|pair| pair[0].unwrap_or(0) < pair[1].unwrap()), "{asked:?}");
    assert_eq!(heard.count(|event| matches!(event, Event::Resume { .. })), 5);
}

#[tokio::test]
async fn a_registry_without_ranges_is_read_from_where_it_was() {
    let blob = content();
    let served = blob.clone();
    let tries = Mutex::new(0);
    let server = Scripted::start(move |_| {
        *tries.lock().unwrap() += 1;
        let n = if *tries.lock().unwrap() == 1 { 500_000 } else { served.len() };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", served.len());
        Answer::Bytes([head.as_bytes(), &served[..n]].concat())
    });
    let (client, _) = listening(plain(&[&server]));
    assert_eq!(read(&client, &app(server.host()), &blob).await.unwrap(), blob);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_blob_that_stalls_goes_on() {
    let blob = content();
    let served = blob.clone();
    let server = Scripted::start(move |request| match (offset(request), part(&served, request, 100)) {
        (None, Answer::Bytes(bytes)) => Answer::Stall(bytes),
        _ => part(&served, request, usize::MAX),
    });
    let (client, _) = listening(plain(&[&server]));
    assert_eq!(read(&client, &app(server.host()), &blob).await.unwrap(), blob);
}

#[tokio::test]
async fn a_lie_about_the_range_is_refused() {
    let blob = content();
    for range in ["bytes 0-1199999/1200000", "bytes 100-1199999/1200001", "bytes 100-200/1200000", "nonsense"] {
        let served = blob.clone();
        let server = Scripted::start(move |request| match offset(request) {
            None => part(&served, request, 100),
            Some(_) => http("206 x", &[&format!("Content-Range: {range}")], &served[100..]),
        });
        let (client, _) = listening(plain(&[&server]));
        let error = read(&client, &app(server.host()), &blob).await.unwrap_err();
        assert!(matches!(error, RegistryError::Malformed { .. }), "{range}: {error}");
    }
}

#[tokio::test]
async fn other_bytes_after_a_break_are_caught_by_the_digest() {
    let blob = content();
    let mut other = blob.clone();
    other[1_000_000] ^= 1;
    let descriptor = registry::Descriptor::of("l", &blob);
    let server =
        Scripted::start(move |request| part(if offset(request).is_none() { &blob } else { &other }, request, 900_000));
    let (client, _) = listening(plain(&[&server]));
    let error = client.small_blob(&app(server.host()), &descriptor, 1 << 24).await.unwrap_err();
    assert_eq!(error.code(), reason::IMAGE_BLOB_DIGEST, "{error}");
}

#[tokio::test]
async fn the_next_place_goes_on_where_a_mirror_broke_off() {
    let blob = content();
    let (first, second) = (blob.clone(), blob.clone());
    let mirror = Scripted::start(move |request| part(&first, request, 700_000));
    let location = Scripted::start(move |request| part(&second, request, usize::MAX));
    let (client, _) = mirrored(location.host(), &[mirror.host()], "digest-only");
    assert_eq!(read(&client, &app("r.example"), &blob).await.unwrap(), blob);
    assert_eq!((mirror.requests().len(), location.requests().len()), (1, 1));
    assert!(offset(&location.requests()[0]).is_some_and(|at| at > 0));
}

#[tokio::test]
async fn a_server_that_asks_for_patience_is_asked_again_in_its_time() {
    let tries = Mutex::new(0);
    let server = Scripted::start(move |_| {
        *tries.lock().unwrap() += 1;
        match *tries.lock().unwrap() {
            1 => http("503 x", &[], b""),
            2 => http("429 x", &["Retry-After: 1"], b""),
            _ => http("200 OK", &[], b"{}"),
        }
    });
    let (client, heard) = listening(plain(&[&server]));
    let start = std::time::Instant::now();
    client.manifest(&app(server.host()), &tag()).await.unwrap();
    assert!(start.elapsed() >= std::time::Duration::from_secs(1));
    assert_eq!(heard.count(|event| matches!(event, Event::Retry { .. })), 2);
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn what_is_not_there_or_denied_is_not_asked_for_again() {
    for status in ["404 x", "403 x", "400 x"] {
        let server = Scripted::start(move |_| http(status, &[], b""));
        let (client, _) = listening(plain(&[&server]));
        client.manifest(&app(server.host()), &tag()).await.unwrap_err();
        assert_eq!(server.requests().len(), 1, "{status}");
    }
}

/// A proxy that opens tunnels and passes requests on; gives its address and what it was asked.
fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let log = Arc::clone(&log);
            std::thread::spawn(move || relay(stream, &log));
        }
    });
    (address, asked)
}

fn relay(mut client: TcpStream, log: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    log.lock().unwrap().push(line.trim_end().to_owned());
    let mut words = line.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let mut server = if method == "CONNECT" {
        let server = TcpStream::connect(target).ok()?;
        let mut header = String::new();
        while reader.read_line(&mut header).ok()? > 2 {
            header.clear();
        }
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
        server
    } else {
        // The first request of a connection in the form for proxies; each connection here carries one.
        let (host, path) = target.strip_prefix("http://")?.split_once('/')?;
        let mut server = TcpStream::connect(host).ok()?;
        write!(server, "{method} /{path} HTTP/1.1\r\nConnection: close\r\n").ok()?;
        server
    };
    let mut back = (server.try_clone().ok()?, client.try_clone().ok()?);
    std::thread::spawn(move || {
        std::io::copy(&mut back.0, &mut back.1).map(|_| back.1.shutdown(std::net::Shutdown::Both))
    });
    std::io::copy(&mut reader, &mut server).ok()?;
    Some(())
}

#[tokio::test]
async fn a_configured_proxy_carries_tls_in_a_tunnel_and_plain_requests_as_they_are() {
    let server = DockerRegistry::start_with_tls();
    let roots = vec![server.dir().join("ca.pem")];
    let (address, asked) = proxy();
    let through = RegistryConfig { roots, proxy: Some(format!("http://{address}")), ..config() };
    let (client, _) = listening(through.clone());
    let error = client.manifest(&app(&server.host()), &tag()).await.unwrap_err();
    assert_eq!(error.code(), reason::IMAGE_NOT_FOUND, "{error}");
    assert_eq!(asked.lock().unwrap()[0], format!("CONNECT {} HTTP/1.1", server.host()));

    asked.lock().unwrap().clear();
    let (client, _) = listening(RegistryConfig { no_proxy: vec!["127.0.0.0/8".to_owned()], ..through });
    let error = client.manifest(&app(&server.host()), &tag()).await.unwrap_err();
    assert_eq!(error.code(), reason::IMAGE_NOT_FOUND, "{error}");
    assert!(asked.lock().unwrap().is_empty(), "127.0.0.1 is excepted");

    let server = DockerRegistry::start();
    let digest = push(&server, b"layer").await;
    let (client, _) = listening(RegistryConfig {
        plain_http: vec![server.host()],
        proxy: Some(format!("http://{address}")),
        ..config()
    });
    assert_eq!(client.manifest(&app(&server.host()), &tag()).await.unwrap().digest, digest);
    assert_eq!(asked.lock().unwrap()[0], format!("GET http://{}/v2/app/manifests/v1 HTTP/1.1", server.host()));
}

#[tokio::test]
async fn a_proxy_that_cannot_be_used_as_it_is_written_is_refused() {
    for (proxy, no_proxy) in [
        (Some("socks5://p.example:1080"), vec![]),
        (Some("p.example:3128"), vec![]),
        (Some("http://p.example/path"), vec![]),
        (None, vec!["h.example"]),
        (Some("http://user:secret@p.example:1/?x"), vec![]),
        (Some("http://p.example"), vec!["a.example,b.example"]),
    ] {
        let no_proxy = no_proxy.into_iter().map(str::to_owned).collect();
        let config = RegistryConfig { proxy: proxy.map(str::to_owned), no_proxy, ..config() };
        let error = HttpRegistry::new(config).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn a_credential_helper_opens_a_registry_with_a_password() {
    let server = DockerRegistry::start_with_password();
    let helpers = server.dir().join("helpers");
    std::fs::create_dir(&helpers).unwrap();
    let path = helpers.join("docker-credential-test");
    let script = format!(
        "#!/bin/sh\nread -r host\nif [ \"$host\" = {} ]; then echo '{{\"Username\":\"{}\",\"Secret\":\"{}\"}}'; \
         else echo credentials not found; exit 1; fi\n",
        server.host(),
        USER.0,
        USER.1
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let files = [
        format!(r#"{{"credHelpers":{{"{}":"test"}}}}"#, server.host()),
        r#"{"credsStore":"test"}"#.to_owned(),
        format!(r#"{{"auths":{{"{}":{{}}}},"credsStore":"test"}}"#, server.host()),
    ];
    for file in files {
        let auth_file = server.dir().join("auth.json");
        std::fs::write(&auth_file, &file).unwrap();
        let plain_http = vec![server.host()];
        let base = RegistryConfig { plain_http, auth_file: Some(auth_file), ..config() };
        let (client, _) = listening(RegistryConfig { credential_helper_dirs: vec![helpers.clone()], ..base.clone() });
        let error = client.manifest(&app(&server.host()), &tag()).await.unwrap_err();
        assert_eq!(error.code(), reason::IMAGE_NOT_FOUND, "{file}: {error}");
        let (client, _) = listening(base);
        let error = client.manifest(&app(&server.host()), &tag()).await.unwrap_err();
        assert!(error.to_string().contains("credential_helper_dirs"), "never taken for anonymous: {error}");
    }
    let conf = RegistriesConf::parse("credential-helpers = [\"test\"]").unwrap();
    let (client, _) = listening(RegistryConfig {
        plain_http: vec![server.host()],
        registries_conf: conf,
        credential_helper_dirs: vec![helpers],
        ..config()
    });
    let error = client.manifest(&app(&server.host()), &tag()).await.unwrap_err();
    assert_eq!(error.code(), reason::IMAGE_NOT_FOUND, "{error}");
}

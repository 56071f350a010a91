//! `pull`: an image into a store, verified and measured while it streams.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};

use image_rs_fork::{ImagePolicy, LayerEvent, LayerPlace, Limits, MeasuredImage, Progress};
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use protocols::digest::Sha256Digest;
use protocols::time::Timestamp;
use registry::oci::{Document, Manifest};
use serde_json::{Value, json};

use crate::cli::PullArguments;
use crate::encryption;
use crate::issue;
use crate::outcome::Failure;
use crate::output::Output;
use crate::store::{Recorder, Store, coded};

/// Pulls, records what was pulled, and tells it.
pub(crate) async fn pull(arguments: &PullArguments, output: &Output) -> Result<(), Failure> {
    let (registry, reference) = issue::source(&arguments.source)?;
    let (root, quota) = (&arguments.store.store, arguments.quota);
    let store = match arguments.layout {
        Some(layout) => Store::open(root, layout.into(), quota)?,
        None => Store::open_suitable(root, quota, output)?,
    };
    let _held = store.hold_mounted()?;
    let keys = encryption::ring(&arguments.source.access.decryption)?;
    let source = Recorder::new(&*registry);
    let found = image_rs_fork::fetch(&reference, &source).await.map_err(|error| coded(&error))?;
    let policy = ImagePolicy::host(issue::signatures(&arguments.source.access.signatures)?, Timestamp::now());
    let verified = found.verify(&policy, &source).await.map_err(|error| coded(&error))?;
    let watch = Watch::new(!output.json() && std::io::stderr().is_terminal());
    let written = written();
    let pulled = image_rs_fork::pull(verified, &source, store.layers(), &keys, &Limits::default(), &watch).await;
    let image = pulled.map_err(|error| coded(&error))?;
    let written = written.zip(self::written()).map(|(before, after)| after.saturating_sub(before));
    let manifest = manifest(&source, &image)?;
    let size = manifest.layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
    store.record(&reference, &image, size, &source)?;
    let told = Told { reference: &reference, image: &image, manifest: &manifest, reused: &watch.reused() };
    output.tell(|| told.value(&store, source.received(), written), || told.lines(size, source.received()))
}

fn manifest(source: &Recorder<'_>, image: &MeasuredImage) -> Result<Manifest, Failure> {
    let bytes = source.document(&image.descriptor().digest);
    match bytes.as_deref().map(Document::parse) {
        Some(Ok(Document::Manifest(manifest))) => Ok(*manifest),
        _ => Err(Failure::Fault("the manifest that was verified cannot be read again".to_owned())),
    }
}

/// What there is to say of a pull.
struct Told<'a> {
    reference: &'a registry::ImageReference,
    image: &'a MeasuredImage,
    manifest: &'a Manifest,
    reused: &'a BTreeMap<Sha256Digest, bool>,
}

impl Told<'_> {
    fn value(&self, store: &Store, downloaded: u64, written: Option<u64>) -> Value {
        let measured = self.image.measurement();
        let digests = self.image.layer_digests();
        let layers: Vec<Value> = (self.manifest.layers.iter().zip(&measured.layers).zip(&digests))
            .map(|((blob, diff_id), digest)| {
                json!({
                    "blob": blob.digest, "size": blob.size, "media_type": blob.media_type, "diff_id": diff_id,
                    "measurement": digest, "reused": self.reused.get(&blob.digest),
                })
            })
            .collect();
        json!({
            "reference": self.reference,
            "manifest": measured.manifest,
            "config": measured.config,
            "platform": measured.platform.to_string(),
            "layers": layers,
            "layout": measured.rootfs.layout,
            "rootfs": self.image.rootfs_digests(),
            "bytes_downloaded": downloaded,
            "bytes_written": written,
            "store": store.root(),
        })
    }

    fn lines(&self, size: u64, downloaded: u64) -> Vec<String> {
        let measured = self.image.measurement();
        let reused = self.reused.values().filter(|reused| **reused).count();
        let layers = measured.layers.len();
        vec![
            format!("{} is {} ({})", self.reference, measured.manifest, measured.platform),
            format!(
                "  {layers} layers of {}, {reused} stored before, {} downloaded",
                HumanBytes(size),
                HumanBytes(downloaded)
            ),
            format!("  root file system {} ({})", measured.rootfs.digest, measured.rootfs.layout.as_str()),
        ]
    }
}

/// Follows the pull for people, and remembers which layers were stored before.
struct Watch {
    shown: Option<Shown>,
    reused: Mutex<BTreeMap<Sha256Digest, bool>>,
}

/// One bar for the whole, and one for each layer on its way.
struct Shown {
    all: MultiProgress,
    total: ProgressBar,
    layers: Mutex<BTreeMap<usize, ProgressBar>>,
}

impl Watch {
    fn new(shown: bool) -> Self {
        let shown = shown.then(|| {
            let all = MultiProgress::new();
            let total = all.add(bar("{wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec}", 0));
            Shown { all, total, layers: Mutex::default() }
        });
        Self { shown, reused: Mutex::default() }
    }

    fn reused(&self) -> BTreeMap<Sha256Digest, bool> {
        self.reused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn bar(template: &str, length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

impl Shown {
    /// `layer 2 0123456789ab 127.0.0.1:5000`.
    fn named(layer: &LayerPlace<'_>) -> String {
        let short: String = layer.blob.hex().chars().take(12).collect();
        format!("layer {} {short} {}", layer.index, layer.registry)
    }

    fn event(&self, layer: &LayerPlace<'_>, event: LayerEvent) {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let remark = match event {
            LayerEvent::Started => {
                let bar = bar("{msg:40} {bytes:>12} of {total_bytes}", layer.size).with_message(Self::named(layer));
                layers.insert(layer.index, self.all.insert_before(&self.total, bar));
                return;
            }
            LayerEvent::Received(bytes) => {
                if let Some(bar) = layers.get(&layer.index) {
                    bar.inc(bytes);
                }
                return;
            }
            LayerEvent::Waiting => "waits for another pull",
            LayerEvent::Reused => "was stored before and is measured again",
            LayerEvent::Corrupt => "was altered in the store and is fetched again",
            LayerEvent::Unpacked => "verified",
            LayerEvent::Stored => return,
        };
        if let Some(bar) = layers.remove(&layer.index) {
            bar.finish_and_clear();
        }
        let _ = self.all.println(format!("{} {remark}", Self::named(layer)));
    }
}

impl Progress for Watch {
    fn start(&self, _: usize, bytes: u64) {
        if let Some(shown) = &self.shown {
            shown.total.set_length(bytes);
        }
    }

    fn advance(&self, bytes: u64) {
        if let Some(shown) = &self.shown {
            shown.total.inc(bytes);
        }
    }

    fn layer(&self, digest: &Sha256Digest, reused: bool) {
        // A layer named twice was fetched if it was fetched once.
        let mut layers = self.reused.lock().unwrap_or_else(PoisonError::into_inner);
        layers.entry(*digest).and_modify(|before| *before &= reused).or_insert(reused);
    }

    fn event(&self, layer: &LayerPlace<'_>, event: LayerEvent) {
        if let Some(shown) = &self.shown {
            shown.event(layer, event);
        }
    }

    fn finish(&self) {
        if let Some(shown) = &self.shown {
            shown.total.finish_and_clear();
        }
    }
}

/// Bytes this process has handed to write calls; `None` where the kernel does not count them.
fn written() -> Option<u64> {
    let counters = std::fs::read_to_string("/proc/self/io").ok()?;
    counters.lines().find_map(|line| line.strip_prefix("wchar: "))?.parse().ok()
}

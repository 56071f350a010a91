//! `images` and `prune`: what is in a store, and what need not be.

use indicatif::HumanBytes;
use protocols::image::Layout;
use registry::ImageReference;
use serde_json::{Value, json};

use crate::cli::{ImagesArguments, PruneArguments};
use crate::issue;
use crate::outcome::Failure;
use crate::output::{Output, columns};
use crate::store::{self, LAYOUTS, Mount, Store, absolute};

/// One line per pulled reference.
pub(crate) fn images(arguments: &ImagesArguments, output: &Output) -> Result<(), Failure> {
    let root = absolute(&arguments.store.store)?;
    let references = store::references(&root)?;
    let mounts = Mount::all(&root)?;
    let targets = |reference: &str| {
        let here = mounts.iter().filter(|(_, mount)| mount.reference == reference);
        here.map(|(_, mount)| mount.target.display().to_string()).collect::<Vec<_>>()
    };
    let value = || {
        let one = |(reference, record): (&String, &store::Record)| {
            json!({"reference": reference, "manifest": record.manifest, "platform": record.platform.to_string(),
                   "layout": record.layout, "layers": record.layers, "size": record.size, "pulled": record.pulled,
                   "mounts": targets(reference)})
        };
        Value::Array(references.iter().map(one).collect())
    };
    let lines = || {
        let head = ["REFERENCE", "MANIFEST", "LAYOUT", "LAYERS", "SIZE", "PULLED", "MOUNTED AT"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for (reference, record) in &references {
            rows.push(vec![
                reference.clone(),
                record.manifest.hex().chars().take(12).collect(),
                record.layout.as_str().to_owned(),
                record.layers.len().to_string(),
                HumanBytes(record.size).to_string(),
                record.pulled.to_string(),
                targets(reference).join(" "),
            ]);
        }
        columns(&rows)
    };
    output.tell(value, lines)
}

/// Forgets the references that are named, then removes layers and documents no reference and no mount needs.
pub(crate) fn prune(arguments: &PruneArguments, output: &Output) -> Result<(), Failure> {
    let root = absolute(&arguments.store.store)?;
    let named: Vec<ImageReference> =
        arguments.references.iter().map(|text| issue::reference(text)).collect::<Result<_, _>>()?;
    let (mut forgotten, mut layers) = (Vec::new(), 0);
    for layout in LAYOUTS {
        // The first one opened keeps everybody else out while the records change.
        let store = Store::open(&root, *layout, None)?;
        if *layout == Layout::TreeV1 {
            forgotten = forget(&store, &named, arguments.all)?;
        }
        layers += store.prune()?;
    }
    output.tell(
        || json!({"forgotten": forgotten, "layers_removed": layers}),
        || {
            let mut lines: Vec<String> = forgotten.iter().map(|reference| format!("forgot {reference}")).collect();
            lines.push(format!("{layers} layers removed"));
            lines
        },
    )
}

/// Takes references out of the records, unless they are mounted.
fn forget(store: &Store, named: &[ImageReference], all: bool) -> Result<Vec<String>, Failure> {
    let mut references = store::references(store.root())?;
    let mounts = Mount::all(store.root())?;
    let mounted = |reference: &str| mounts.iter().any(|(_, mount)| mount.reference == reference);
    for reference in named {
        let text = reference.to_string();
        if !references.contains_key(&text) {
            return Err(Failure::Usage(format!("{text} was not pulled into this store")));
        }
        if mounted(&text) {
            return Err(Failure::Usage(format!("{text} is mounted: `tclctl umount` first")));
        }
    }
    let goes = |text: &String| (all && !mounted(text)) || named.iter().any(|reference| reference.to_string() == *text);
    let gone: Vec<String> = references.keys().filter(|text| goes(text)).cloned().collect();
    references.retain(|text, _| !gone.contains(text));
    store.write_references(&references)?;
    Ok(gone)
}

//! Every case through both stores, from a registry to the mounted root file system.

use image_rs_fork::{ErofsStore, LayerStore, TreeStore, Unenforced};
use protocols::image::Layout;
use protocols::reason::Code;

use crate::case::{Case, Expect, all};
use crate::look::look;
use crate::support::{World, image, names, run};

/// The case pulled into a store of its own, so that nothing is found that another case stored, and mounted.
async fn seen(world: &World, case: &Case, layout: Layout) -> Result<Vec<String>, Code> {
    let home = tempfile::tempdir_in("/dev/shm").unwrap();
    let root = home.path().join("store");
    let (store, layers): (Box<dyn LayerStore>, _) = match layout {
        Layout::TreeV1 => (Box::new(TreeStore::open(&root).unwrap()), root.join("layers")),
        Layout::ErofsV1 => {
            let store = ErofsStore::open(&root, None, Unenforced::Refused).unwrap();
            (Box::new(store), root.join(layout.as_str()).join("images"))
        }
    };
    let pulled = run(&world.reference(case.name), &world.client, store.as_ref(), &case.limits).await;
    let partial: Vec<String> = names(&layers).into_iter().filter(|name| name.contains("partial")).collect();
    assert_eq!(partial, Vec::<String>::new(), "{}", case.name);
    let image = pulled.map_err(|error| error.code())?;
    let mounted = image.mount(&home.path().join("mounted")).unwrap();
    let lines = look(mounted.path());
    mounted.unmount().unwrap();
    Ok(lines)
}

#[tokio::test]
async fn every_case_becomes_what_it_should_in_both_layouts() {
    let world = World::new();
    let mut wrong = Vec::new();
    for case in all() {
        image::push(&world.client, &world.repository, case.name, &case.layers).await;
        let expected = match &case.expect {
            Expect::Tree(lines) => Ok(lines.clone()),
            Expect::Refused(code) => Err(*code),
        };
        for layout in Layout::ALL {
            let found = seen(&world, &case, layout).await;
            if found != expected {
                wrong.push(format!("{} in {}: {found:#?}\nnot {expected:#?}", case.name, layout.as_str()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

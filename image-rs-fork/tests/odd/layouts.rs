//! Every case through both layouts.

use image_rs_fork::TreeStore;
use protocols::reason::Code;

use crate::case::{Case, Expect, all};
use crate::look::look;
use crate::stack::Stack;
use crate::support::{World, image, run};

/// The case pulled from a registry into a `tree-v1` store of its own, and mounted.
async fn tree(world: &World, case: &Case) -> Result<Vec<String>, Code> {
    image::push(&world.client, &world.repository, case.name, &case.layers).await;
    // Nothing is found that another case stored.
    let home = tempfile::tempdir().unwrap();
    let store = TreeStore::open(&home.path().join("store")).unwrap();
    let pulled = run(&world.reference(case.name), &world.client, &store, &case.limits).await;
    let image = pulled.map_err(|error| error.code())?;
    let mounted = image.mount(&home.path().join("mounted")).unwrap();
    let lines = look(mounted.path());
    mounted.unmount().unwrap();
    Ok(lines)
}

fn erofs(case: &Case) -> Result<Vec<String>, Code> {
    Ok(look(Stack::new(&case.layers, &case.limits)?.path()))
}

#[tokio::test]
async fn every_case_becomes_what_it_should_in_both_layouts() {
    let world = World::new();
    let mut wrong = Vec::new();
    for case in all() {
        let expected = match &case.expect {
            Expect::Tree(lines) => Ok(lines.clone()),
            Expect::Refused(code) => Err(*code),
        };
        for (layout, found) in [("tree", tree(&world, &case).await), ("erofs", erofs(&case))] {
            if found != expected {
                wrong.push(format!("{} in {layout}: {found:#?}\nnot {expected:#?}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

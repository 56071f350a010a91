//! A case: layers, and what they become.

use image_rs_fork::Limits;
use protocols::reason::Code;

use crate::support::image::{LayerBlob, plain};
use crate::support::tar::{Item, archive};

/// What an image must become.
#[derive(Clone)]
pub(crate) enum Expect {
    /// Lines of [`crate::look`], without the root where nothing is odd about it.
    Tree(Vec<String>),
    Refused(Code),
}

/// One odd image.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The lowest first.
    pub(crate) layers: Vec<LayerBlob>,
    pub(crate) expect: Expect,
    pub(crate) limits: Limits,
}

/// One layer of these entries becomes these lines.
pub(crate) fn tree(name: &'static str, items: impl IntoIterator<Item = Item>, lines: &[&str]) -> Case {
    stack(name, vec![archive(items)], lines)
}

/// Layers of these archives become these lines.
pub(crate) fn stack(name: &'static str, archives: Vec<Vec<u8>>, lines: &[&str]) -> Case {
    blobs(name, archives.iter().map(|archive| plain(archive)).collect(), lines)
}

/// Layers of these blobs become these lines.
pub(crate) fn blobs(name: &'static str, layers: Vec<LayerBlob>, lines: &[&str]) -> Case {
    let lines = lines.iter().map(|line| (*line).to_owned()).collect();
    Case { name, layers, expect: Expect::Tree(lines), limits: Limits::default() }
}

/// One layer of these entries is refused.
pub(crate) fn refused(name: &'static str, items: impl IntoIterator<Item = Item>, code: Code) -> Case {
    raw_refused(name, archive(items), code)
}

/// One layer of this archive is refused.
pub(crate) fn raw_refused(name: &'static str, archive: Vec<u8>, code: Code) -> Case {
    blobs_refused(name, vec![plain(&archive)], code)
}

pub(crate) fn blobs_refused(name: &'static str, layers: Vec<LayerBlob>, code: Code) -> Case {
    Case { name, layers, expect: Expect::Refused(code), limits: Limits::default() }
}

impl Case {
    pub(crate) fn within(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

/// Every case there is.
pub(crate) fn all() -> Vec<Case> {
    let groups = [
        crate::paths::cases(),
        crate::links::cases(),
        crate::devices::cases(),
        crate::pax::cases(),
        crate::numbers::cases(),
        crate::xattrs::cases(),
        crate::times::cases(),
        crate::replacement::cases(),
        crate::whiteouts::cases(),
        crate::ends::cases(),
        crate::framing::cases(),
        crate::limits::cases(),
    ];
    groups.into_iter().flatten().collect()
}

#[test]
fn names_are_unique() {
    let mut names: Vec<_> = all().iter().map(|case| case.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(count >= 120, "{count} cases");
}

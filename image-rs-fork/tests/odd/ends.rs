//! Where archives end.

use protocols::reason::{IMAGE_DIFF_ID, IMAGE_LAYER_FORMAT};

use crate::case::{Case, blobs_refused, raw_refused, stack};
use crate::support::image::plain;
use crate::support::tar::{archive, file, open_archive};

pub(crate) fn cases() -> Vec<Case> {
    let entry = || open_archive([file("f", b"x")]);
    let zeros = |count: usize| vec![0; count * 512];
    let line = &["f0644 0:0 /f \"x\""][..];
    let mut other = plain(&archive([file("f", b"x")]));
    other.diff_id = plain(&archive([file("f", b"y")])).diff_id;
    vec![
        stack("end-of-an-empty-blob", vec![Vec::new()], &[]),
        stack("end-of-an-empty-archive", vec![zeros(2)], &[]),
        stack("end-without-zeros", vec![entry()], line),
        stack("end-after-one-block-of-zeros", vec![[entry(), zeros(1)].concat()], line),
        stack("end-of-a-tape-record", vec![[entry(), zeros(18)].concat()], line),
        stack("end-and-then-garbage", vec![[entry(), zeros(2), vec![b'x'; 700]].concat()], line),
        stack("end-and-then-another-archive", vec![[entry(), zeros(2), open_archive([file("g", b"")])].concat()], line),
        stack("end-without-the-last-padding", vec![entry()[..513].to_vec()], line),
        raw_refused("end-within-a-header", entry()[..100].to_vec(), IMAGE_LAYER_FORMAT),
        raw_refused(
            "end-within-a-files-data",
            open_archive([file("f", &[1; 600])])[..600].to_vec(),
            IMAGE_LAYER_FORMAT,
        ),
        raw_refused("header-after-one-block-of-zeros", [entry(), zeros(1), entry()].concat(), IMAGE_LAYER_FORMAT),
        raw_refused("header-with-a-wrong-sum", [&b"g"[..], &entry()[1..]].concat(), IMAGE_LAYER_FORMAT),
        raw_refused("garbage-instead-of-an-archive", vec![b'x'; 1024], IMAGE_LAYER_FORMAT),
        blobs_refused("archive-of-another-diff-id", vec![other], IMAGE_DIFF_ID),
    ]
}

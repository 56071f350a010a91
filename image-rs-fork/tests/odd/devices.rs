//! Devices and pipes.

use protocols::reason::IMAGE_LAYER_FORMAT;

use crate::case::{Case, refused, stack, tree};
use crate::support::tar::{archive, file, item};

pub(crate) fn cases() -> Vec<Case> {
    let base256 = |at: usize, value: u32| {
        let mut field = [0u8; 8];
        field[0] = 0x80;
        field[4..].copy_from_slice(&value.to_be_bytes());
        item(b'4', "b").device(1, 1).with(at, &field)
    };
    vec![
        tree("character-device", [item(b'3', "c").device(1, 3).mode(0o666)], &["c0666 0:0 /c 1:3"]),
        tree("block-device", [item(b'4', "b").device(259, 65_543)], &["b0644 0:0 /b 259:65543"]),
        tree("pipe", [item(b'6', "p").mode(0o600).owner(3, 4).mtime(5)], &["p0600 3:4 /p @5"]),
        tree(
            "device-of-the-largest-numbers",
            [item(b'4', "b").device(0xfff, 0xf_ffff)],
            &["b0644 0:0 /b 4095:1048575"],
        ),
        refused("device-with-a-major-above-12-bits", [base256(329, 0x1000)], IMAGE_LAYER_FORMAT),
        refused("device-with-a-minor-above-20-bits", [base256(337, 0x10_0000)], IMAGE_LAYER_FORMAT),
        tree("block-device-zero", [item(b'4', "b").device(0, 0)], &["b0644 0:0 /b 0:0"]),
        stack(
            "character-device-zero-is-a-whiteout",
            vec![archive([file("c", b"x"), file("kept", b"y")]), archive([item(b'3', "c").device(0, 0)])],
            &["f0644 0:0 /kept \"y\""],
        ),
        tree("file-of-the-contiguous-type", [item(b'7', "f").content(b"x")], &["f0644 0:0 /f \"x\""]),
        tree("file-of-the-oldest-type", [item(0, "f").content(b"x")], &["f0644 0:0 /f \"x\""]),
        refused("type-of-a-volume-label", [item(b'V', "v")], IMAGE_LAYER_FORMAT),
        refused("type-of-a-continued-file", [item(b'M', "m")], IMAGE_LAYER_FORMAT),
        refused("type-unknown", [item(b'Z', "z")], IMAGE_LAYER_FORMAT),
        refused("type-of-a-dumped-directory", [item(b'D', "d")], IMAGE_LAYER_FORMAT),
    ]
}

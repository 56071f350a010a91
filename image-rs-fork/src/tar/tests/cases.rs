//! Every odd archive by name: what it gives, or why it is refused. Each is parsed whole and in pieces.

use super::build::{
    Archive, Form, Sum, base256, device, dir, file, gnu_pairs, gnu_sparse, hardlink, head, pax_body, symlink,
};
use super::list::story;

/// Splits that put every boundary somewhere else.
pub(super) const SPLITS: [&[usize]; 6] = [&[usize::MAX], &[1], &[511], &[512], &[513, 1, 7], &[100, 1000]];

fn check(archive: &[u8], want: &str) {
    let want: String =
        want.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect();
    for pieces in SPLITS {
        assert_eq!(story(archive, pieces), want, "in pieces of {pieces:?}");
    }
}

macro_rules! cases {
    ($($name:ident: $archive:expr => $want:literal)*) => {
        /// Name and bytes of every case.
        pub(super) fn all() -> Vec<(&'static str, Vec<u8>)> {
            vec![$((stringify!($name), $archive)),*]
        }

        $(#[test]
        fn $name() {
            check(&$archive, $want);
        })*
    };
}

fn new() -> Archive {
    Archive::new()
}

fn field8(value: i64) -> [u8; 8] {
    let mut field = [0; 8];
    base256(&mut field, value);
    field
}

fn field12(value: i64) -> [u8; 12] {
    let mut field = [0; 12];
    base256(&mut field, value);
    field
}

/// A file whose content looks like an archive with one entry more.
fn smuggler() -> Vec<u8> {
    new().entry(file("smuggled"), "evil").0
}

/// Like `name` in ustar for `prefix`: as the old Go writer wrote it into GNU headers.
fn go17(prefix: &str, name: &str) -> super::build::Head {
    file(name).form(Form::Gnu).prefix(prefix)
}

/// A map of format 1.0, filled up to a block.
fn map10(text: &str) -> Vec<u8> {
    let mut map = text.as_bytes().to_vec();
    map.resize(map.len().next_multiple_of(512), 0);
    map
}

const V10: [(&str, &[u8]); 4] = [
    ("GNU.sparse.major", b"1"),
    ("GNU.sparse.minor", b"0"),
    ("GNU.sparse.name", b"dir/sparse"),
    ("GNU.sparse.realsize", b"2000"),
];

cases! {
    // Ends.
    empty_blob: Vec::new() => ""
    empty_archive: new().end() => ""
    no_end_blocks: new().entry(file("a"), "x").0 => "f0644 0:0 1 /a 1 \"x\""
    one_end_block: new().entry(file("a"), "x").raw([0; 512]).0 => "f0644 0:0 1 /a 1 \"x\""
    no_padding_at_the_end: { let mut a = new().entry(file("a"), "x").0; a.truncate(513); a } => "f0644 0:0 1 /a 1 \"x\""
    garbage_after_the_end: { let mut a = new().entry(file("a"), "x").end(); a.extend(smuggler()); a.push(7); a } =>
        "f0644 0:0 1 /a 1 \"x\""
    header_after_one_zero_block: new().entry(file("a"), "").raw([0; 512]).entry(file("b"), "").end() =>
        "f0644 0:0 1 /a 0
         image.layer_format: at byte 1024: a header after a block of zeros"
    cut_in_the_data: { let mut a = new().entry(file("a"), "xyz").0; a.truncate(514); a } =>
        "f0644 0:0 1 /a 3 ...
         image.layer_format: the archive ends early, after 514 bytes"
    cut_in_a_header: { let mut a = new().entry(file("a"), "xyz").0; a.truncate(511); a } =>
        "image.layer_format: the archive ends early, after 511 bytes"
    cut_in_the_zeros: new().entry(file("a"), "x").raw([0; 700]).0 =>
        "f0644 0:0 1 /a 1 \"x\"
         image.layer_format: the archive ends early, after 1724 bytes"
    cut_in_a_pax_header: { let mut a = new().pax(&[("path", b"long")]).0; a.truncate(520); a } =>
        "image.layer_format: the archive ends early, after 520 bytes"
    pax_header_without_an_entry: new().pax(&[("path", b"long")]).end() =>
        "image.layer_format: at byte 2048: an extended header without an entry"
    long_name_without_an_entry: new().long_name("long").0 =>
        "image.layer_format: at byte 1024: an extended header without an entry"
    no_archive_at_all: vec![b'x'; 2000] => "image.layer_format: at byte 0: no tar header, or a damaged one"
    wrong_sum: new().entry(file("a").sum(Sum::Wrong), "x").end() =>
        "image.layer_format: at byte 0: no tar header, or a damaged one"
    signed_sum: new().entry(file(b"\xff\xfe").sum(Sum::Signed), "x").end() => "f0644 0:0 1 /\\xff\\xfe 1 \"x\""

    // Types.
    every_type: new()
        .entry(dir("d/"), "")
        .entry(file("d/f"), "hello")
        .entry(symlink("d/l", "../f"), "")
        .entry(hardlink("d/h", "d/f"), "")
        .entry(device(b'3', "d/c", 1, 3).mode(0o666), "")
        .entry(device(b'4', "d/b", 8, 300), "")
        .entry(head(b'6', "d/p"), "")
        .end() =>
        "d0755 0:0 1 /d
         f0644 0:0 1 /d/f 5 \"hello\"
         l0777 0:0 1 /d/l -> ../f
         h0644 0:0 1 /d/h = /d/f
         c0666 0:0 1 /d/c 1:3
         b0644 0:0 1 /d/b 8:300
         p0644 0:0 1 /d/p"
    whiteout_device: new().entry(device(b'3', "gone", 0, 0).mode(0), "").end() => "c0000 0:0 1 /gone 0:0"
    device_number_too_large: new().entry(device(b'3', "dev", 4096, 0), "").end() =>
        "image.layer_format: at byte 0: device 4096:0 of dev"
    device_number_negative: new().entry(device(b'4', "dev", 1, -1), "").end() =>
        "image.layer_format: at byte 0: device 1:-1 of dev"
    contiguous_file: new().entry(file("c").typeflag(b'7'), "data").end() => "f0644 0:0 1 /c 4 \"data\""
    v7_headers: new()
        .entry(dir("old/").form(Form::V7).typeflag(0), "")
        .entry(file("old/f").form(Form::V7).typeflag(0), "v7")
        .entry(symlink("old/l", "f").form(Form::V7), "")
        .end() =>
        "d0755 0:0 1 /old
         f0644 0:0 1 /old/f 2 \"v7\"
         l0777 0:0 1 /old/l -> f"
    v7_ignores_the_prefix: new().entry(file("f").form(Form::V7).prefix("nonsense"), "").end() => "f0644 0:0 1 /f 0"
    typeflag_nul_with_slash_is_a_directory: new().entry(file("d/").typeflag(0), "").end() => "d0644 0:0 1 /d"
    typeflag_nul_with_slash_by_pax: new().pax(&[("path", b"deep/d/")]).entry(file("d").typeflag(0), "").end() =>
        "d0644 0:0 1 /deep/d"
    regular_file_with_slash: new().entry(file("d/"), "").end() =>
        "image.layer_format: at byte 0: d/ is a regular file by its type and a directory by its name"
    unknown_typeflag: new().entry(file("v").typeflag(b'V'), "").end() =>
        "image.layer_format: at byte 0: v is of unknown type 'V'"
    unknown_typeflag_not_ascii: new().entry(file("v").typeflag(0xee), "").end() =>
        "image.layer_format: at byte 0: v is of unknown type '\\xee'"
    multi_volume: new().entry(file("m").typeflag(b'M'), "rest").end() =>
        "image.layer_format: at byte 0: m is of unknown type 'M'"
    sizes_on_types_without_data: new()
        .head(dir("d").size(4096))
        .head(symlink("l", "d").size(10))
        .head(hardlink("h", "f").size(1000))
        .head(device(b'3', "c", 1, 3).size(1))
        .head(head(b'6', "p").size(512))
        .entry(file("after"), "x")
        .end() =>
        "d0755 0:0 1 /d
         l0777 0:0 1 /l -> d
         h0644 0:0 1 /h = /f
         c0644 0:0 1 /c 1:3
         p0644 0:0 1 /p
         f0644 0:0 1 /after 1 \"x\""
    suid_sticky_and_type_bits_in_the_mode: new()
        .entry(file("su").mode(0o104_755), "")
        .entry(dir("tmp").mode(0o41_777), "")
        .end() =>
        "f4755 0:0 1 /su 0
         d1777 0:0 1 /tmp"

    // Names.
    ustar_prefix: new().entry(file("name").prefix("some/dir"), "").end() => "f0644 0:0 1 /some/dir/name 0"
    star_prefix: new().entry(file("name").form(Form::Star).prefix("p".repeat(131)), "").end() =>
        "f0644 0:0 1 /ppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppp/name 0"
    full_name_field: new().entry(symlink("n".repeat(100), "t".repeat(100)), "").end() =>
        "l0777 0:0 1 /nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn -> tttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt"
    gnu_header_with_a_ustar_prefix_of_old_go: new().entry(go17("a-directory/of-an/older.writer", "f"), "").end() =>
        "f0644 0:0 1 /a-directory/of-an/older.writer/f 0"
    gnu_times_are_no_prefix: new()
        .entry(file("f").form(Form::Gnu).patch(345, b"14227214521\x0014227214521\0"), "")
        .end() => "f0644 0:0 1 /f 0"
    gnu_binary_times_are_no_prefix: new()
        .entry(file("f").form(Form::Gnu).patch(345, field12(-7)).patch(357, field12(1 << 40)), "")
        .end() => "f0644 0:0 1 /f 0"
    non_utf8_name: new().entry(file(b"caf\xe9/\xff"), "").end() => "f0644 0:0 1 /caf\\xe9/\\xff 0"
    absolute_path: new().entry(file("/etc/passwd"), "").end() => "f0644 0:0 1 /etc/passwd 0"
    dot_dot_is_clamped: new().entry(file("../../etc/passwd"), "").entry(file("a/../b"), "").end() =>
        "f0644 0:0 1 /etc/passwd 0
         f0644 0:0 1 /b 0"
    root_entry: new().entry(dir("./").mode(0o700), "").entry(dir("/"), "").end() =>
        "d0700 0:0 1 /
         d0755 0:0 1 /"
    root_as_a_file: new().entry(file("a/.."), "").end() =>
        "image.unsafe: at byte 0: a/.. would replace the layer's root"
    nameless_symlink: new().entry(symlink("", "/etc"), "").end() =>
        "image.unsafe: at byte 0:  would replace the layer's root"
    component_too_long: new().long_name("c".repeat(256)).entry(file("c"), "").end() =>
        "image.limit: at byte 1024: a path component of 256 bytes, more than 255: cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
    whiteouts_are_entries: new()
        .entry(file("d/.wh.gone"), "")
        .entry(file("d/.wh..wh..opq"), "")
        .entry(file("d/.wh."), "")
        .entry(hardlink("d/.wh.linked", "d/.wh.gone"), "")
        .end() =>
        "f0644 0:0 1 /d/.wh.gone 0
         f0644 0:0 1 /d/.wh..wh..opq 0
         f0644 0:0 1 /d/.wh. 0
         h0644 0:0 1 /d/.wh.linked = /d/.wh.gone"

    // Links.
    symlink_target_as_stored: new().entry(symlink("l", "/../..//x/."), "").end() => "l0777 0:0 1 /l -> /../..//x/."
    symlink_without_a_target: new().entry(symlink("l", ""), "").end() =>
        "image.layer_format: at byte 0: the link l has no target"
    hardlink_absolute: new().entry(hardlink("h", "/usr/bin/f"), "").end() => "h0644 0:0 1 /h = /usr/bin/f"
    hardlink_relative: new().entry(hardlink("d/h", "./d/../f"), "").end() => "h0644 0:0 1 /d/h = /f"
    hardlink_escaping: new().entry(hardlink("h", "../../etc/shadow"), "").end() =>
        "image.unsafe: at byte 0: a path above the layer's root: ../../etc/shadow"
    hardlink_to_the_root: new().entry(hardlink("h", "/"), "").end() =>
        "image.unsafe: at byte 0: h is a hard link to the layer's root"
    hardlink_without_a_target: new().entry(hardlink("h", ""), "").end() =>
        "image.unsafe: at byte 0: h is a hard link to the layer's root"

    // Numbers.
    uid_by_base256: new().entry(file("f").owner(3_000_000, 3_000_001), "").end() => "f0644 3000000:3000001 1 /f 0"
    uid_by_pax: new().pax(&[("uid", b"3000000"), ("gid", b"4294967294")]).entry(file("f"), "").end() =>
        "f0644 3000000:4294967294 1 /f 0"
    uid_above_32_bits: new().pax(&[("uid", b"4294967296")]).entry(file("f"), "").end() =>
        "image.layer_format: at byte 1024: uid 4294967296 of f"
    uid_that_means_no_change: new().pax(&[("gid", b"4294967295")]).entry(file("f"), "").end() =>
        "image.layer_format: at byte 1024: gid 4294967295 of f"
    uid_negative: new().entry(file("f").owner(-2, 0), "").end() => "image.layer_format: at byte 0: uid -2 of f"
    uid_negative_by_pax: new().pax(&[("uid", b"-1")]).entry(file("f"), "").end() =>
        "image.layer_format: at byte 1024: uid -1 of f"
    uid_overflow_by_pax: new().pax(&[("uid", b"99999999999999999999")]).entry(file("f"), "").end() =>
        "image.layer_format: at byte 0: PAX uid is no number: 99999999999999999999"
    uid_empty_field: new().entry(file("f").patch(108, [0; 16]), "").end() => "f0644 0:0 1 /f 0"
    uid_no_octal: new().entry(file("f").patch(108, b"000009\0"), "").end() =>
        "image.layer_format: at byte 0: uid is no number: 000009\\x00\\x00"
    size_by_base256: new().entry(file("f").patch(124, field12(3)), "abc").end() => "f0644 0:0 1 /f 3 \"abc\""
    size_negative: new().entry(file("f").size(-1), "").end() => "image.layer_format: at byte 0: size -1"
    size_negative_by_pax: new().pax(&[("size", b"-1")]).entry(file("f"), "").end() =>
        "image.layer_format: at byte 1024: size -1"
    size_overflow_by_base256: new()
        .entry(file("f").patch(124, [0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]), "")
        .end() =>
        "image.layer_format: at byte 0: size is no number: \\x80\\x00\\x00\\x00\\x80\\x00\\x00\\x00\\x00\\x00\\x00\\x00"
    size_overflow_by_pax: new().pax(&[("size", b"9223372036854775808")]).entry(file("f"), "").end() =>
        "image.layer_format: at byte 0: PAX size is no number: 9223372036854775808"
    size_of_eight_exbibytes: new().pax(&[("size", b"9223372036854775807")]).entry(file("f"), "").end() =>
        "image.limit: at byte 1024: more than 17179869184 bytes of a layer's files"
    mode_by_base256_negative: new().entry(file("f").patch(100, field8(-1)), "").end() => "f7777 0:0 1 /f 0"
    mtime_negative: new().entry(file("f").mtime(-86_400), "").end() => "f0644 0:0 -86400 /f 0"
    mtime_fraction: new().pax(&[("mtime", b"1350244992.0239601089")]).entry(file("f"), "").end() =>
        "f0644 0:0 1350244992+23960108ns /f 0"
    mtime_negative_fraction: new().pax(&[("mtime", b"-1.5")]).entry(file("f"), "").end() =>
        "f0644 0:0 -2+500000000ns /f 0"
    mtime_malformed: new().pax(&[("mtime", b"noon")]).entry(file("f"), "").end() =>
        "image.layer_format: at byte 0: PAX mtime is no number: noon"
    device_field_of_a_file_malformed: new().entry(file("f").patch(329, b"x"), "").end() =>
        "image.layer_format: at byte 0: devmajor is no number: x\\x00\\x00\\x00\\x00\\x00\\x00\\x00"

    // Extended headers.
    pax_names: new()
        .pax(&[("path", b"pax/name"), ("linkpath", b"pax/target")])
        .entry(symlink("short", "t"), "")
        .entry(symlink("next", "t"), "")
        .end() =>
        "l0777 0:0 1 /pax/name -> pax/target
         l0777 0:0 1 /next -> t"
    gnu_long_names: new()
        .long_link("gnu/target")
        .long_name("gnu/name")
        .entry(hardlink("short", "t"), "")
        .entry(hardlink("next", "t"), "")
        .end() =>
        "h0644 0:0 1 /gnu/name = /gnu/target
         h0644 0:0 1 /next = /t"
    gnu_long_name_ends_at_its_nul: new().entry(head(b'L', "x").form(Form::Gnu), "one\0two").entry(file("f"), "").end() =>
        "f0644 0:0 1 /one 0"
    gnu_long_name_without_nul: new().entry(head(b'L', "x").form(Form::Gnu), "one").entry(file("f"), "").end() =>
        "f0644 0:0 1 /one 0"
    gnu_long_name_empty: new().entry(head(b'L', "x").form(Form::Gnu), "").entry(file("f"), "").end() =>
        "f0644 0:0 1 /f 0"
    pax_and_gnu_names_that_agree: new().pax(&[("path", b"same")]).long_name("same").entry(file("f"), "").end() =>
        "f0644 0:0 1 /same 0"
    pax_and_gnu_names_that_differ: new().pax(&[("path", b"one")]).long_name("two").entry(file("f"), "").end() =>
        "image.layer_format: at byte 2048: a long path and a PAX path that differ"
    pax_and_gnu_targets_that_differ: new()
        .long_link("two")
        .pax(&[("linkpath", b"one")])
        .entry(symlink("f", "t"), "")
        .end() => "image.layer_format: at byte 2048: a long linkpath and a PAX linkpath that differ"
    pax_header_twice: new().pax(&[("uid", b"1")]).pax(&[("gid", b"2")]).entry(file("f"), "").end() =>
        "image.layer_format: at byte 1024: a second 'x' header for one entry"
    gnu_long_name_twice: new().long_name("one").long_name("two").entry(file("f"), "").end() =>
        "image.layer_format: at byte 1024: a second 'L' header for one entry"
    pax_empty_value_leaves_the_header: new()
        .pax(&[("path", b""), ("uid", b""), ("size", b""), ("mtime", b""), ("linkpath", b"")])
        .entry(file("f").owner(7, 8), "abc")
        .end() => "f0644 7:8 1 /f 3 \"abc\""
    pax_empty_value_undoes_an_earlier_one: new()
        .pax(&[("path", b"one"), ("uid", b"9"), ("mtime", b"5.5"), ("path", b""), ("uid", b""), ("mtime", b"")])
        .entry(file("f"), "")
        .end() => "f0644 0:0 1 /f 0"
    pax_last_of_a_key_counts: new().pax(&[("path", b"one"), ("uid", b"1"), ("path", b"two"), ("uid", b"2")])
        .entry(file("f"), "")
        .end() => "f0644 2:0 1 /two 0"
    pax_unknown_keys: new().pax(&[("comment", b"a\0b=c\nd"), ("LIBARCHIVE.xattr.user.x", b"eA")]).entry(file("f"), "").end() =>
        "f0644 0:0 1 /f 0"
    pax_nul_in_the_path: new().pax(&[("path", b"a\0b")]).entry(file("f"), "").end() =>
        "image.layer_format: at byte 0: a PAX record is malformed: a NUL byte in a name"
    pax_nul_in_a_key: new().pax(&[("SCHILY.xattr.user.a\0b", b"v")]).entry(file("f"), "").end() =>
        "image.layer_format: at byte 0: a PAX record is malformed: an empty key or one with a NUL byte"
    pax_wrong_length: new().entry(head(b'x', "x"), "99 path=f\n").entry(file("f"), "").end() =>
        "image.layer_format: at byte 0: a PAX record is malformed: a wrong length"
    pax_no_newline: new().entry(head(b'x', "x"), "9 path=f ").entry(file("f"), "").end() =>
        "image.layer_format: at byte 0: a PAX record is malformed: no newline at its end"
    pax_no_equals: new().entry(head(b'x', "x"), "7 path\n").entry(file("f"), "").end() =>
        "image.layer_format: at byte 0: a PAX record is malformed: no '='"
    pax_zero_length: new().entry(head(b'x', "x"), "0 path=f\n").entry(file("f"), "").end() =>
        "image.layer_format: at byte 0: a PAX record is malformed: no newline at its end"
    pax_nul_padding_inside: new().entry(head(b'x', "x"), [pax_body(&[("path", b"g")]), vec![0; 9]].concat())
        .entry(file("f"), "")
        .end() => "image.layer_format: at byte 0: a PAX record is malformed: no length"
    pax_empty_header: new().entry(head(b'x', "x"), "").entry(file("f"), "").end() => "f0644 0:0 1 /f 0"
    pax_does_not_reach_the_entry_after: new()
        .pax(&[("uid", b"5"), ("SCHILY.xattr.user.a", b"v"), ("mtime", b"9.5")])
        .entry(file("f"), "")
        .entry(file("g"), "")
        .end() =>
        "f0644 5:0 9+500000000ns /f 0 user.a=v
         f0644 0:0 1 /g 0"
    pax_huge_header: new().head(head(b'x', "x").size(1 << 40)).end() =>
        "image.limit: at byte 0: more than 1048576 bytes of an extended header"
    gnu_huge_long_name: new().head(head(b'L', "x").size(5000)).end() =>
        "image.limit: at byte 0: more than 4607 bytes of an extended header"
    pax_negative_size_of_the_header: new().head(head(b'x', "x").size(-512)).end() =>
        "image.layer_format: at byte 0: size -512"

    // The size override and where it belongs: CVE-2025-62518, CVE-2026-33055, CVE-2026-53655.
    pax_size_over_a_zero_header: new().pax(&[("size", b"1024")]).head(file("f").size(0)).raw(smuggler()).entry(file("g"), "").end() =>
        "f0644 0:0 1 /f 1024 [1024:28fc2be3]
         f0644 0:0 1 /g 0"
    pax_size_over_a_nonzero_header: new().pax(&[("size", b"1024")]).head(file("f").size(512)).raw(smuggler()).entry(file("g"), "").end() =>
        "f0644 0:0 1 /f 1024 [1024:28fc2be3]
         f0644 0:0 1 /g 0"
    pax_size_below_the_header: new().pax(&[("size", b"0")]).head(file("f").size(1024)).raw(smuggler()).end() =>
        "f0644 0:0 1 /f 0
         f0644 0:0 1 /smuggled 4 \"evil\""
    pax_size_before_a_long_name: new()
        .pax(&[("size", b"4")])
        .long_name("a/name")
        .entry(file("f").size(0), "abcd")
        .entry(file("g"), "")
        .end() =>
        "f0644 0:0 1 /a/name 4 \"abcd\"
         f0644 0:0 1 /g 0"
    pax_size_before_a_long_link: new()
        .pax(&[("size", b"0")])
        .long_link("a/target")
        .entry(symlink("l", "t"), "")
        .entry(file("g"), "")
        .end() =>
        "l0777 0:0 1 /l -> a/target
         f0644 0:0 1 /g 0"
    pax_size_before_a_global_header: new().pax(&[("size", b"4")]).global(&[("comment", b"x")]).entry(file("f"), "abcd").end() =>
        "image.layer_format: at byte 1024: an extended header without an entry"
    pax_size_on_a_directory: new().pax(&[("size", b"1024")]).head(dir("d")).entry(file("g"), "").end() =>
        "d0755 0:0 1 /d
         f0644 0:0 1 /g 0"

    // Global headers.
    global_header_has_no_effect: new()
        .global(&[("comment", b"0123456789abcdef"), ("uid", b"5"), ("mtime", b"7"), ("SCHILY.xattr.user.a", b"v")])
        .entry(file("f"), "")
        .end() => "f0644 0:0 1 /f 0"
    global_size: new().global(&[("size", b"1024")]).entry(file("f"), "").end() =>
        "image.layer_format: at byte 0: a global PAX header sets size"
    global_path: new().global(&[("path", b"everything")]).entry(file("f"), "").end() =>
        "image.layer_format: at byte 0: a global PAX header sets path"
    global_sparse: new().global(&[("GNU.sparse.major", b"1")]).entry(file("f"), "").end() =>
        "image.layer_format: at byte 0: a global PAX header sets GNU.sparse.major"
    global_malformed: new().entry(head(b'g', "g"), "nonsense\n").entry(file("f"), "").end() =>
        "image.layer_format: at byte 0: a PAX record is malformed: no length"
    global_only: new().global(&[("comment", b"c")]).0 => ""

    // Attributes.
    xattrs_are_sorted_and_the_last_counts: new()
        .pax(&[
            ("SCHILY.xattr.user.b", b"1"),
            ("SCHILY.xattr.user.a", b"old"),
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0 \0\0"),
            ("SCHILY.xattr.user.a", b"new=\n"),
        ])
        .entry(file("f"), "x")
        .end() => "f0644 0:0 1 /f 1 security.capability=\\x01\\x00\\x00\\x02\\x00 \\x00\\x00 user.a=new=\\n user.b=1 \"x\""
    xattr_with_an_empty_value: new()
        .pax(&[("SCHILY.xattr.user.a", b"x"), ("SCHILY.xattr.user.a", b"")])
        .entry(dir("d"), "")
        .end() => "d0755 0:0 1 /d user.a="
    xattr_without_a_name: new().pax(&[("SCHILY.xattr.", b"x")]).entry(dir("d"), "").end() =>
        "image.layer_format: at byte 0: a PAX record is malformed: an attribute without a name"
    xattr_of_overlayfs: new().pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y")]).entry(dir("d"), "").end() =>
        "image.unsafe: at byte 1024: d sets the reserved attribute trusted.overlay.opaque"
    xattr_name_too_long: new().pax(&[(&format!("SCHILY.xattr.user.{}", "n".repeat(251)), b"y")]).entry(dir("d"), "").end() =>
        "image.limit: at byte 0: more than 255 bytes of an attribute's name"
    xattr_value_too_long: new().pax(&[("SCHILY.xattr.user.a", &[b'v'; 65_536])]).entry(dir("d"), "").end() =>
        "image.limit: at byte 0: more than 65535 bytes of an attribute's value"

    // Sparse files.
    gnu_sparse_file: new().entry(gnu_sparse("s", 2000, &[(3, 4), (1000, 2)], false), "abcdef").entry(file("g"), "").end() =>
        "f0644 0:0 1 /s 2000 {3}\"abcd\"{993}\"ef\"{998}
         f0644 0:0 1 /g 0"
    gnu_sparse_with_more_blocks: new()
        .head(gnu_sparse("s", 512, &[(0, 1), (2, 1), (4, 1), (6, 1)], true).size(26))
        .raw(gnu_pairs(&(4..25).map(|i| (2 * i, 1)).collect::<Vec<_>>()))
        .raw(b"\x01\0\0\0\0\0\0\0")
        .raw(gnu_pairs(&[(50, 1), (512, 0)]))
        .pad()
        .raw(b"abcdefghijklmnopqrstuvwxyz")
        .pad()
        .entry(file("g"), "")
        .end() =>
        "f0644 0:0 1 /s 512 \"a\"{1}\"b\"{1}\"c\"{1}\"d\"{1}\"e\"{1}\"f\"{1}\"g\"{1}\"h\"{1}\"i\"{1}\"j\"{1}\"k\"{1}\"l\"{1}\"m\"{1}\"n\"{1}\"o\"{1}\"p\"{1}\"q\"{1}\"r\"{1}\"s\"{1}\"t\"{1}\"u\"{1}\"v\"{1}\"w\"{1}\"x\"{1}\"y\"{1}\"z\"{461}
         f0644 0:0 1 /g 0"
    gnu_sparse_of_holes_only: new().entry(gnu_sparse("s", 5000, &[(5000, 0)], false), "").entry(file("g"), "").end() =>
        "f0644 0:0 1 /s 5000 {5000}
         f0644 0:0 1 /g 0"
    sparse_files_one_after_the_other: new()
        .entry(gnu_sparse("a", 9, &[(1, 2)], false), "ab")
        .entry(gnu_sparse("b", 9, &[(1, 2)], false), "cd")
        .pax(&[("GNU.sparse.size", b"9"), ("GNU.sparse.numblocks", b"1"), ("GNU.sparse.map", b"1,2")])
        .entry(file("c"), "ef")
        .pax(&V10)
        .entry(file("d"), [map10("1\n1\n2\n"), b"gh".to_vec()].concat())
        .pax(&V10)
        .entry(file("d"), [map10("1\n1\n2\n"), b"ij".to_vec()].concat())
        .end() =>
        "f0644 0:0 1 /a 9 {1}\"ab\"{6}
         f0644 0:0 1 /b 9 {1}\"cd\"{6}
         f0644 0:0 1 /c 9 {1}\"ef\"{6}
         f0644 0:0 1 /dir/sparse 2000 {1}\"gh\"{1997}
         f0644 0:0 1 /dir/sparse 2000 {1}\"ij\"{1997}"
    gnu_sparse_empty: new().entry(gnu_sparse("s", 0, &[], false), "").end() => "f0644 0:0 1 /s 0"
    gnu_sparse_in_a_ustar_header: new().entry(gnu_sparse("s", 4, &[(0, 4)], false).form(Form::Ustar), "abcd").end() =>
        "image.layer_format: at byte 0: a sparse file's map is wrong: type 'S' in an archive that is not GNU's"
    gnu_sparse_overlap: new().entry(gnu_sparse("s", 9, &[(0, 4), (3, 4)], false), "abcdefgh").end() =>
        "f0644 0:0 1 /s 9 ...
         image.layer_format: at byte 0: a sparse file's map is wrong: pieces overlap or are out of order"
    gnu_sparse_beyond_its_end: new().entry(gnu_sparse("s", 5, &[(0, 4), (4, 4)], false), "abcdefgh").end() =>
        "f0644 0:0 1 /s 5 ...
         image.layer_format: at byte 0: a sparse file's map is wrong: a piece beyond the file's end"
    gnu_sparse_with_data_left: new().entry(gnu_sparse("s", 9, &[(0, 4)], false).size(8), "abcdefgh").end() =>
        "f0644 0:0 1 /s 9 ...
         image.layer_format: at byte 0: a sparse file's map is wrong: the pieces are not the stored bytes"
    gnu_sparse_of_eight_exbibytes: new().entry(gnu_sparse("s", i64::MAX, &[(i64::MAX - 1, 1)], false), "a").end() =>
        "image.limit: at byte 0: more than 17179869184 bytes of a layer's files"
    pax_sparse_10: new()
        .pax(&V10)
        .entry(file("GNUSparseFile.0/sparse"), [map10("2\n3\n4\n1998\n2\n"), b"abcdef".to_vec()].concat())
        .entry(file("g"), "")
        .end() =>
        "f0644 0:0 1 /dir/sparse 2000 {3}\"abcd\"{1991}\"ef\"
         f0644 0:0 1 /g 0"
    pax_sparse_10_with_a_full_map_block: new()
        .pax(&V10)
        .entry(file("x"), ["127\n", &"0\n0\n".repeat(126), "0\n4\nabcd"].concat())
        .end() => "f0644 0:0 1 /dir/sparse 2000 \"abcd\"{1996}"
    pax_sparse_10_without_pieces: new().pax(&V10).entry(file("x"), map10("0\n")).entry(file("g"), "").end() =>
        "f0644 0:0 1 /dir/sparse 2000 {2000}
         f0644 0:0 1 /g 0"
    pax_sparse_10_map_cut: new().pax(&V10).entry(file("x"), "2\n3\n4\n").end() =>
        "f0644 0:0 1 /dir/sparse 2000 ...
         image.layer_format: at byte 1024: a sparse file's map is wrong: a map longer than the stored bytes"
    pax_sparse_10_map_not_filled_up: new().pax(&V10).entry(file("x"), "1\n0\n4\nabcd").end() =>
        "f0644 0:0 1 /dir/sparse 2000 ...
         image.layer_format: at byte 1024: a sparse file's map is wrong: a map longer than the stored bytes"
    pax_sparse_10_map_no_number: new().pax(&V10).entry(file("x"), map10("1\nx\n4\n")).end() =>
        "f0644 0:0 1 /dir/sparse 2000 ...
         image.layer_format: at byte 1024: a sparse file's map is wrong: no decimal number in a map of format 1.0"
    pax_sparse_10_endless_map: new().pax(&V10).entry(file("x"), "9999999999\n".to_owned() + &"0\n0\n".repeat(70_000)).end() =>
        "f0644 0:0 1 /dir/sparse 2000 ...
         image.limit: at byte 1024: more than 65536 pieces of a sparse file"
    pax_sparse_01: new()
        .pax(&[
            ("GNU.sparse.size", b"20"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.name", b"real"),
            ("GNU.sparse.map", b"0,3,15,5"),
        ])
        .entry(file("x"), "abcdefgh")
        .end() => "f0644 0:0 1 /real 20 \"abc\"{12}\"defgh\""
    pax_sparse_00: new()
        .pax(&[
            ("GNU.sparse.size", b"20"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.offset", b"1"),
            ("GNU.sparse.numbytes", b"3"),
            ("GNU.sparse.offset", b"15"),
            ("GNU.sparse.numbytes", b"4"),
        ])
        .entry(file("x"), "abcdefg")
        .entry(file("g"), "")
        .end() =>
        "f0644 0:0 1 /x 20 {1}\"abc\"{11}\"defg\"{1}
         f0644 0:0 1 /g 0"
    pax_sparse_00_out_of_step: new()
        .pax(&[("GNU.sparse.offset", b"1"), ("GNU.sparse.offset", b"3")])
        .entry(file("x"), "")
        .end() =>
        "image.layer_format: at byte 0: a sparse file's map is wrong: offsets and lengths do not alternate"
    pax_sparse_01_wrong_count: new()
        .pax(&[("GNU.sparse.size", b"20"), ("GNU.sparse.numblocks", b"3"), ("GNU.sparse.map", b"0,3,15,5")])
        .entry(file("x"), "abcdefgh")
        .end() =>
        "image.layer_format: at byte 1024: a sparse file's map is wrong: GNU.sparse.numblocks is not the map's length"
    pax_sparse_of_unknown_version: new()
        .pax(&[("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")])
        .entry(file("x"), "abc")
        .end() => "image.layer_format: at byte 1024: a sparse file's map is wrong: an unknown version"
    pax_sparse_name_alone: new().pax(&[("GNU.sparse.name", b"other")]).entry(file("x"), "abc").end() =>
        "image.layer_format: at byte 1024: a sparse file's map is wrong: no size"
    pax_sparse_directory: new().pax(&V10).entry(dir("x"), "").end() =>
        "image.layer_format: at byte 1024: a sparse file's map is wrong: an entry that is no file has one"

    // Several entries of one name: the parser reports them all, in order.
    one_name_many_times: new()
        .entry(file("a"), "1")
        .entry(file("a"), "22")
        .entry(dir("a"), "")
        .entry(symlink("a", "/etc"), "")
        .entry(file("a/b"), "")
        .end() =>
        "f0644 0:0 1 /a 1 \"1\"
         f0644 0:0 1 /a 2 \"22\"
         d0755 0:0 1 /a
         l0777 0:0 1 /a -> /etc
         f0644 0:0 1 /a/b 0"
}

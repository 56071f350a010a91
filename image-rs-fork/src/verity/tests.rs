//! The tree against `veritysetup` (Debian's cryptsetup-bin), which must be installed.

use std::fs;
use std::process::Command;

use proptest::prelude::*;

use super::super::*;
use super::TreeBuilder;

fn data(count: u64, seed: u64) -> Vec<Block> {
    (0..count)
        .map(|n| {
            let mut block = [0; BLOCK];
            block[..8].copy_from_slice(&n.wrapping_mul(seed | 1).to_le_bytes());
            block[4000] = 7;
            block
        })
        .collect()
}

/// Root hash and tree as `veritysetup` makes them.
fn reference(data: &[Block], salt: &[u8]) -> (String, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let (data_file, tree_file) = (dir.path().join("data"), dir.path().join("tree"));
    fs::write(&data_file, data.as_flattened()).unwrap();
    fs::write(&tree_file, b"").unwrap();
    let salt = if salt.is_empty() { "-".to_owned() } else { hex::encode(salt) };
    let output = Command::new("/usr/sbin/veritysetup")
        .args(["format", "--no-superblock", "--format=1", "--hash=sha256"])
        .args(["--data-block-size=4096", "--hash-block-size=4096", "--salt", &salt])
        .args([&data_file, &tree_file])
        .output()
        .expect("cryptsetup-bin must be installed");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let root = text.lines().find_map(|line| line.strip_prefix("Root hash:")).unwrap().trim().to_owned();
    (root, fs::read(&tree_file).unwrap())
}

/// Root hash and tree as built here, the leaves set in the order that `order` gives.
fn built(
    data: &[Block],
    salt: &[u8],
    mut builder: TreeBuilder,
    order: impl Iterator<Item = usize>,
) -> (String, Vec<u8>) {
    for index in order {
        builder.hash(index as u64, std::slice::from_ref(&data[index])).unwrap();
    }
    let mut out = Blocks::from(data.to_vec());
    let tree = builder.finish(data.len() as u64, &mut out, data.len() as u64).unwrap();
    assert_eq!(tree.tree_blocks, tree_blocks(data.len() as u64));
    assert_eq!(root_hash(&out, data.len() as u64, salt).unwrap(), Some(tree.root_hash));
    (tree.root_hash.hex(), out.as_bytes()[data.len() * BLOCK..].to_vec())
}

#[test]
fn every_border_of_a_level_is_byte_equal_to_veritysetup() {
    for count in [1, 2, 3, 127, 128, 129, 255, 256, 257, 128 * 128 - 1, 128 * 128, 128 * 128 + 1] {
        let data = data(count, 1);
        for salt in [&b""[..], &[0xab; 32]] {
            let mine = built(&data, salt, TreeBuilder::new(salt), 0..data.len());
            assert!(mine == reference(&data, salt), "{count} blocks, salt of {} bytes", salt.len());
        }
    }
}

#[test]
fn no_data_block_is_refused() {
    let error = TreeBuilder::new(b"").finish(0, &mut Blocks::new(), 0).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(root_hash(&Blocks::new(), 0, b"").unwrap(), None);
}

#[test]
fn a_block_never_hashed_is_refused() {
    for hole in [0usize, 5, 127, 128, 299] {
        let data = data(300, 3);
        let mut builder = TreeBuilder::new(b"");
        for (index, block) in data.iter().enumerate().filter(|(index, _)| *index != hole) {
            builder.hash(index as u64, std::slice::from_ref(block)).unwrap();
        }
        let error = builder.finish(300, &mut Blocks::new(), 300).unwrap_err();
        assert!(error.to_string().contains(&format!("data block {hole} ")), "{error}");
    }
}

#[test]
fn a_hash_past_the_last_block_is_refused() {
    for (count, beyond) in [(1, 1), (127, 127), (128, 128), (128, 200), (3, 1000)] {
        let mut builder = TreeBuilder::new(b"");
        builder.hash(0, &data(count, 1)).unwrap();
        builder.set_leaf(beyond, &[1; 32]).unwrap();
        assert!(builder.finish(count, &mut Blocks::new(), count).is_err());
    }
}

#[test]
fn a_block_hashed_again_counts_with_its_last_content() {
    let mut data = data(300, 9);
    let mut builder = TreeBuilder::new(b"s");
    builder.hash(0, &data).unwrap();
    data[130][9] = 1;
    builder.hash(130, &data[130..131]).unwrap();
    let mut out = Blocks::new();
    let tree = builder.finish(300, &mut out, 0).unwrap();
    assert_eq!(tree.root_hash.hex(), reference(&data, b"s").0);
}

#[test]
fn spilled_leaves_in_any_order_give_the_same_tree() {
    // 20,000 blocks are 157 hash blocks, more than stay in memory; the order visits old ones again and again.
    let data = data(20_000, 5);
    let order = (0..data.len()).map(|n| n * 7919 % 20_000);
    let spilling = TreeBuilder::spilling(b"", Box::new(Blocks::new()));
    assert!(built(&data, b"", spilling, order) == built(&data, b"", TreeBuilder::new(b""), 0..data.len()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_size_and_salt_is_byte_equal_to_veritysetup(
        count in 1u64..2000, seed in any::<u64>(), salt in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let data = data(count, seed);
        let mine = built(&data, &salt, TreeBuilder::new(&salt), (0..data.len()).rev());
        prop_assert!(mine == reference(&data, &salt));
    }
}

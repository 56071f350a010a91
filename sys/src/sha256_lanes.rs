//! Salted SHA-256 of 4 KiB blocks, four at a time: what a dm-verity tree is made of.
//!
//! One SHA-256 stream leaves most of a core idle, because every round waits for the one before. Four blocks
//! are independent, so their rounds are interleaved and the SHA-NI unit stays busy. Where a processor has no
//! SHA-NI, and for the blocks that do not fill a group of four, `sha2` does the work with the same result.

use sha2::{Digest as _, Sha256};

/// Bytes of one block.
pub const BLOCK: usize = 4096;

/// A SHA-256 digest.
pub type Digest = [u8; 32];

/// Computes `SHA-256(salt || block)` for 4 KiB blocks; the salt is absorbed once.
#[derive(Clone)]
pub struct SaltedSha256 {
    salted: Sha256,
    #[cfg(target_arch = "x86_64")]
    lanes: Option<x86::Lanes>,
}

impl std::fmt::Debug for SaltedSha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SaltedSha256").field("interleaved", &self.is_interleaved()).finish_non_exhaustive()
    }
}

impl SaltedSha256 {
    /// A hasher for blocks after `salt`, which may have any length; with four lanes where the processor can.
    #[must_use]
    pub fn new(salt: &[u8]) -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            lanes: x86::Lanes::detect(salt),
            ..Self::portable(salt)
        }
    }

    /// The same without lanes, for comparison.
    #[must_use]
    pub fn portable(salt: &[u8]) -> Self {
        Self {
            salted: Sha256::new_with_prefix(salt),
            #[cfg(target_arch = "x86_64")]
            lanes: None,
        }
    }

    /// Whether four blocks are hashed at a time.
    #[must_use]
    pub const fn is_interleaved(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.lanes.is_some();
        #[cfg(not(target_arch = "x86_64"))]
        return false;
    }

    /// The digest of one block.
    #[must_use]
    pub fn hash(&self, block: &[u8; BLOCK]) -> Digest {
        self.salted.clone().chain_update(block).finalize().into()
    }

    /// The digests of four blocks.
    #[must_use]
    pub fn hash4(&self, blocks: [&[u8; BLOCK]; 4]) -> [Digest; 4] {
        #[cfg(target_arch = "x86_64")]
        if let Some(lanes) = &self.lanes {
            return lanes.hash4(blocks);
        }
        blocks.map(|block| self.hash(block))
    }

    /// Hands the digest of each block to `each`, in order.
    pub fn hash_each(&self, blocks: &[[u8; BLOCK]], mut each: impl FnMut(Digest)) {
        let (groups, rest) = blocks.as_chunks::<4>();
        for group in groups {
            self.hash4(group.each_ref()).into_iter().for_each(&mut each);
        }
        rest.iter().map(|block| self.hash(block)).for_each(&mut each);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
        _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
    };

    use super::{BLOCK, Digest};

    /// Bytes SHA-256 takes in at once.
    const CHUNK: usize = 64;

    /// FIPS 180-4, 5.3.3.
    const INITIAL: [u32; 8] =
        [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

    /// FIPS 180-4, 4.2.2, four constants for each step.
    #[rustfmt::skip]
    const ROUNDS: [[u32; 4]; 16] = [
        [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5], [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
        [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3], [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
        [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc], [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
        [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7], [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
        [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13], [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
        [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3], [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
        [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5], [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
        [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208], [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
    ];

    /// The hash after the salt's whole chunks, and the rest of the salt. Exists only where SHA-NI does.
    #[derive(Clone)]
    pub(super) struct Lanes {
        state: [u32; 8],
        rest: Vec<u8>,
        message_bits: u64,
    }

    impl Lanes {
        /// `None` on a processor without SHA-NI.
        pub(super) fn detect(salt: &[u8]) -> Option<Self> {
            if !(is_x86_feature_detected!("sha")
                && is_x86_feature_detected!("ssse3")
                && is_x86_feature_detected!("sse4.1"))
            {
                return None;
            }
            let (chunks, rest) = salt.as_chunks::<CHUNK>();
            let mut state = INITIAL;
            sha2::block_api::compress256(&mut state, chunks);
            let bytes = u64::try_from(salt.len().checked_add(BLOCK)?).ok()?;
            Some(Self { state, rest: rest.to_vec(), message_bits: bytes.checked_mul(8)? })
        }

        /// The message is `rest || block || padding`: one chunk across the salt's end, the chunks that lie
        /// wholly in the block, and one or two with the block's end and the padding.
        pub(super) fn hash4(&self, blocks: [&[u8; BLOCK]; 4]) -> [Digest; 4] {
            let mut states = [self.state; 4];
            let mut first = [[0u8; CHUNK]; 4];
            let taken = if self.rest.is_empty() { 0 } else { CHUNK.saturating_sub(self.rest.len()) };
            let bodies = blocks.map(|block| block.split_at(taken));
            for (chunk, (head, _)) in first.iter_mut().zip(bodies) {
                self.rest.iter().chain(head).zip(chunk).for_each(|(from, to)| *to = *from);
            }
            let split = bodies.map(|(_, body)| body.as_chunks::<CHUNK>());
            let mut last = [[[0u8; CHUNK]; 2]; 4];
            for (chunks, (_, tail)) in last.iter_mut().zip(split) {
                let bytes = chunks.as_flattened_mut();
                tail.iter().chain(&[0x80]).zip(bytes).for_each(|(from, to)| *to = *from);
                let length = if tail.len() + 9 > CHUNK { chunks.last_mut() } else { chunks.first_mut() };
                if let Some(place) = length.and_then(|chunk| chunk.last_chunk_mut()) {
                    *place = self.message_bits.to_be_bytes();
                }
            }
            let tails = if split.iter().any(|(_, tail)| tail.len() + 9 > CHUNK) { 2 } else { 1 };
            let last = last.each_ref().map(|chunks| chunks.get(..tails).unwrap_or_default());

            // SAFETY: `detect` has seen every feature these functions are compiled for; they have no other
            // requirement.
            #[allow(unsafe_code, reason = "only the caller of a `target_feature` function can know the processor")]
            unsafe {
                if taken > 0 {
                    compress4(&mut states, first.each_ref().map(std::slice::from_ref));
                }
                compress4(&mut states, split.map(|(chunks, _)| chunks));
                compress4(&mut states, last);
            }
            states.map(to_bytes)
        }
    }

    fn to_bytes(state: [u32; 8]) -> Digest {
        let mut digest = [0; 32];
        for (to, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(state) {
            *to = word.to_be_bytes();
        }
        digest
    }

    type Words = [__m128i; 4];

    /// Takes the chunks of four messages, which have equally many, into their states.
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn compress4(states: &mut [[u32; 8]; 4], messages: [&[[u8; CHUNK]]; 4]) {
        // The instructions want (a, b, e, f) and (c, d, g, h), the first word highest.
        let mut abef = states.map(|[a, b, _, _, e, f, _, _]| pack([f, e, b, a]));
        let mut cdgh = states.map(|[_, _, c, d, _, _, g, h]| pack([h, g, d, c]));
        let [one, two, three, four] = messages;
        for (((one, two), three), four) in one.iter().zip(two).zip(three).zip(four) {
            let (before_abef, before_cdgh) = (abef, cdgh);
            let [mut w0, mut w1, mut w2, mut w3] = load([one, two, three, four]);
            let (steps, _) = ROUNDS.as_chunks::<4>();
            for (pass, [k0, k1, k2, k3]) in steps.iter().enumerate() {
                if pass > 0 {
                    schedule(&mut w0, &w1, &w2, &w3);
                }
                step(&mut abef, &mut cdgh, &w0, *k0);
                if pass > 0 {
                    schedule(&mut w1, &w2, &w3, &w0);
                }
                step(&mut abef, &mut cdgh, &w1, *k1);
                if pass > 0 {
                    schedule(&mut w2, &w3, &w0, &w1);
                }
                step(&mut abef, &mut cdgh, &w2, *k2);
                if pass > 0 {
                    schedule(&mut w3, &w0, &w1, &w2);
                }
                step(&mut abef, &mut cdgh, &w3, *k3);
            }
            for (now, before) in abef.iter_mut().zip(before_abef).chain(cdgh.iter_mut().zip(before_cdgh)) {
                *now = _mm_add_epi32(*now, before);
            }
        }
        for ((state, abef), cdgh) in states.iter_mut().zip(abef).zip(cdgh) {
            let [f, e, b, a] = unpack(abef);
            let [h, g, d, c] = unpack(cdgh);
            *state = [a, b, c, d, e, f, g, h];
        }
    }

    /// Four rounds in each lane.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn step(abef: &mut Words, cdgh: &mut Words, words: &Words, constants: [u32; 4]) {
        let constants = pack(constants);
        for ((abef, cdgh), words) in abef.iter_mut().zip(cdgh).zip(words) {
            let sum = _mm_add_epi32(*words, constants);
            *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, sum);
            *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32(sum, 0x0e));
        }
    }

    /// Replaces the oldest four words of each lane's message by the next four.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn schedule(oldest: &mut Words, second: &Words, third: &Words, newest: &Words) {
        for (((oldest, second), third), newest) in oldest.iter_mut().zip(second).zip(third).zip(newest) {
            let carried = _mm_alignr_epi8(*newest, *third, 4);
            let sum = _mm_add_epi32(_mm_sha256msg1_epu32(*oldest, *second), carried);
            *oldest = _mm_sha256msg2_epu32(sum, *newest);
        }
    }

    /// The sixteen big-endian words of each lane's chunk, four to a register.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn load(chunks: [&[u8; CHUNK]; 4]) -> [Words; 4] {
        let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let zero = _mm_set_epi64x(0, 0);
        let mut words = [[zero; 4]; 4];
        for (lane, chunk) in chunks.into_iter().enumerate() {
            for (row, part) in words.iter_mut().zip(chunk.as_chunks::<16>().0) {
                let value = i128::from_le_bytes(*part);
                #[allow(clippy::cast_possible_truncation, reason = "the two halves")]
                let loaded = _mm_set_epi64x((value >> 64) as i64, value as i64);
                if let Some(word) = row.get_mut(lane) {
                    *word = _mm_shuffle_epi8(loaded, swap);
                }
            }
        }
        words
    }

    #[inline]
    #[target_feature(enable = "sse4.1")]
    fn pack([w0, w1, w2, w3]: [u32; 4]) -> __m128i {
        _mm_set_epi32(w3.cast_signed(), w2.cast_signed(), w1.cast_signed(), w0.cast_signed())
    }

    #[inline]
    #[target_feature(enable = "sse4.1")]
    fn unpack(words: __m128i) -> [u32; 4] {
        [
            _mm_extract_epi32(words, 0).cast_unsigned(),
            _mm_extract_epi32(words, 1).cast_unsigned(),
            _mm_extract_epi32(words, 2).cast_unsigned(),
            _mm_extract_epi32(words, 3).cast_unsigned(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blocks(count: usize, seed: u64) -> Vec<[u8; BLOCK]> {
        let mut state = seed | 1;
        (0..count)
            .map(|_| {
                std::array::from_fn(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    state.to_be_bytes()[0]
                })
            })
            .collect()
    }

    fn reference(salt: &[u8], block: &[u8]) -> Digest {
        Sha256::new().chain_update(salt).chain_update(block).finalize().into()
    }

    #[test]
    fn every_salt_length_around_the_chunk_borders_agrees_with_sha2() {
        let blocks = blocks(4, 7);
        for length in 0..=200 {
            let salt: Vec<u8> = (0..=255).cycle().take(length).collect();
            let expected: Vec<Digest> = blocks.iter().map(|b| reference(&salt, b)).collect();
            for hasher in [SaltedSha256::new(&salt), SaltedSha256::portable(&salt)] {
                let four = hasher.hash4(blocks.each_ref_of_four());
                assert_eq!(four.to_vec(), expected, "salt of {length} bytes, {hasher:?}");
            }
        }
    }

    trait FirstFour {
        fn each_ref_of_four(&self) -> [&[u8; BLOCK]; 4];
    }

    impl FirstFour for Vec<[u8; BLOCK]> {
        fn each_ref_of_four(&self) -> [&[u8; BLOCK]; 4] {
            self.first_chunk::<4>().unwrap().each_ref()
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn lanes_are_used_where_the_processor_has_sha_ni() {
        assert_eq!(SaltedSha256::new(b"salt").is_interleaved(), is_x86_feature_detected!("sha"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_blocks_after_any_salt_agree_with_sha2(
            salt in proptest::collection::vec(any::<u8>(), 0..300), count in 0usize..11, seed in any::<u64>(),
        ) {
            let blocks = blocks(count, seed);
            let mut seen = Vec::new();
            SaltedSha256::new(&salt).hash_each(&blocks, |digest| seen.push(digest));
            let expected: Vec<Digest> = blocks.iter().map(|b| reference(&salt, b)).collect();
            prop_assert_eq!(seen, expected);
        }
    }
}

//! A public key with its subkeys, and whether one of them may sign at a given time.

use protocols::encoding;
use protocols::time::Timestamp;

use super::super::Rejection;
use super::key::PublicKey;
use super::message::Message;
use super::packet::{MARKER, PUBLIC_KEY, Packet, SIGNATURE, SUBKEY, TRUST, USER_ATTRIBUTE, USER_ID, packets};
use super::signature::{
    BINARY, CERTIFICATION_REVOCATION, CERTIFICATIONS, DIRECT, KEY_REVOCATION, PRIMARY_BINDING, SUBKEY_BINDING,
    SUBKEY_REVOCATION, Signature,
};

/// The most packets of one key file: keys, names, and the signatures of others on them.
const MAX_PACKETS: usize = 16_384;
/// The lines an armoured key stands between.
const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const END: &str = "-----END PGP PUBLIC KEY BLOCK-----";

/// An OpenPGP certificate: a primary key with what its owner has said of it and of its subkeys.
#[derive(Debug, Clone)]
pub(in super::super) struct Certificate {
    primary: Standing,
    subkeys: Vec<Standing>,
}

/// One key and what the owner has said of it, each word of it checked.
#[derive(Debug, Clone)]
struct Standing {
    key: PublicKey,
    revoked: bool,
    bindings: Vec<Binding>,
}

/// One statement of the owner; the newest in force counts.
#[derive(Debug, Clone)]
struct Binding {
    /// Whether nothing in it is both critical and unknown.
    understood: bool,
    made: u64,
    ends: Option<u64>,
    key_ends: Option<u64>,
    signs: bool,
}

/// What signatures in a key file follow.
enum About {
    /// The owner's signatures on the primary key alone, so far.
    Primary(Vec<Signature>),
    /// A name as it is hashed, and the owner's signatures on it so far.
    Name(Vec<u8>, Vec<Signature>),
    Subkey,
}

impl Certificate {
    /// Reads a key file or keyring, binary or armoured. A private key, something unreadable, a revocation that cannot
    /// be checked, a primary key that verifies nothing here, and one that has nothing of itself signed with SHA-2 are
    /// refused.
    pub(in super::super) fn parse_all(bytes: &[u8]) -> Result<Vec<Self>, String> {
        let bytes = binary(bytes)?;
        let mut packets = packets(&bytes, MAX_PACKETS)?;
        // Local notes of a keyring; nobody has signed them.
        packets.retain(|packet| !matches!(packet.kind, TRUST | MARKER));
        let mut all = Vec::new();
        let mut rest = packets.as_slice();
        while let Some((first, behind)) = rest.split_first() {
            if first.kind != PUBLIC_KEY {
                return Err("something other than a public key at the beginning".to_owned());
            }
            let length = behind.iter().take_while(|packet| packet.kind != PUBLIC_KEY).count();
            let (own, next) = behind.split_at_checked(length).unwrap_or((behind, &[]));
            all.push(Self::of(first, own)?);
            rest = next;
        }
        if all.is_empty() {
            return Err("no OpenPGP key".to_owned());
        }
        Ok(all)
    }

    fn of(primary: &Packet<'_>, packets: &[Packet<'_>]) -> Result<Self, String> {
        let mut it = Self { primary: Standing::of(&primary.body)?, subkeys: Vec::new() };
        let fingerprint = it.primary.key.fingerprint.clone();
        let fail = |problem: String| format!("OpenPGP key {fingerprint}: {problem}");
        if let Some(reason) = it.primary.key.unusable() {
            return Err(fail(reason.to_owned()));
        }
        let mut about = About::Primary(Vec::new());
        for packet in packets {
            let next = match packet.kind {
                SIGNATURE => {
                    let signature = Signature::parse(&packet.body).map_err(fail)?;
                    it.add(signature, &mut about).map_err(|problem| fail(problem.to_owned()))?;
                    continue;
                }
                USER_ID => About::Name(name(0xb4, &packet.body), Vec::new()),
                USER_ATTRIBUTE => About::Name(name(0xd1, &packet.body), Vec::new()),
                SUBKEY => About::Subkey,
                _ => return Err(fail("a packet that belongs to no public key".to_owned())),
            };
            if matches!(next, About::Subkey) {
                let subkey = Standing::of(&packet.body).map_err(fail)?;
                // One of two copies could lack the revocation.
                if std::iter::once(&it.primary)
                    .chain(&it.subkeys)
                    .any(|known| known.key.fingerprint == subkey.key.fingerprint)
                {
                    return Err(fail("a subkey that is there twice".to_owned()));
                }
                it.subkeys.push(subkey);
            }
            it.close(std::mem::replace(&mut about, next));
        }
        it.close(about);
        if it.primary.bindings.is_empty() && !it.primary.revoked {
            return Err(fail("its owner has signed nothing of it with SHA-2".to_owned()));
        }
        Ok(it)
    }

    /// Takes one signature of the file. What others have signed is passed over.
    fn add(&mut self, signature: Signature, about: &mut About) -> Result<(), &'static str> {
        let primary = &self.primary.key;
        match (signature.kind(), about) {
            // Wherever it stands: appended revocations are usual.
            (KEY_REVOCATION, _) => {
                if !primary.verifies(&signature, &[&primary.hashed]) {
                    return Err("a revocation that cannot be checked");
                }
                self.primary.revoked = true;
            }
            (SUBKEY_REVOCATION, About::Subkey) => {
                let Some(subkey) = self.subkeys.last_mut() else { return Ok(()) };
                if !primary.verifies(&signature, &[&primary.hashed, &subkey.key.hashed]) {
                    return Err("a revocation of a subkey that cannot be checked");
                }
                subkey.revoked = true;
            }
            (SUBKEY_REVOCATION, _) => return Err("a revocation of a subkey in another place than behind it"),
            (SUBKEY_BINDING, About::Subkey) => {
                let Some(subkey) = self.subkeys.last_mut() else { return Ok(()) };
                let both = [primary.hashed.as_slice(), &subkey.key.hashed];
                if primary.verifies(&signature, &both) {
                    // Without the subkey's own word anybody could adopt another's subkey.
                    let agreed = signature.embedded().is_some_and(|own| {
                        // A word with an end would have to be watched; nobody writes one.
                        own.kind() == PRIMARY_BINDING
                            && own.created().is_some()
                            && own.ends().is_none()
                            && !own.demands_more()
                            && subkey.key.verifies(own, &both)
                    });
                    subkey.bind(&signature, agreed);
                }
            }
            // The owner's words on the key alone or on a name, and what withdraws them.
            (DIRECT | CERTIFICATION_REVOCATION, About::Primary(own))
                if primary.verifies(&signature, &[&primary.hashed]) =>
            {
                own.push(signature);
            }
            (kind, About::Name(name, own))
                if (CERTIFICATIONS.contains(&kind) || kind == CERTIFICATION_REVOCATION)
                    && primary.verifies(&signature, &[&primary.hashed, name.as_slice()]) =>
            {
                own.push(signature);
            }
            // Others withdraw their own words only.
            (CERTIFICATION_REVOCATION, _) if signature.may_be_by(&primary.fingerprint) => {
                return Err("a revocation of a name that cannot be checked");
            }
            _ => {}
        }
        Ok(())
    }

    /// The owner's words on the key or on one of its names, unless the owner has withdrawn them since.
    fn close(&mut self, about: About) {
        let (About::Primary(own) | About::Name(_, own)) = about else { return };
        let withdrawn = own.iter().filter(|it| it.kind() == CERTIFICATION_REVOCATION);
        // One without a time withdraws everything.
        let withdrawn = withdrawn.map(|it| it.created().unwrap_or(u64::MAX)).max();
        for signature in own.iter().filter(|it| it.kind() != CERTIFICATION_REVOCATION) {
            let stands = withdrawn.is_none_or(|withdrawn| signature.created().is_some_and(|made| made > withdrawn));
            // A signature on the key alone may be about other things, such as who else may revoke it.
            let says = signature.kind() != DIRECT || signature.speaks_of_the_key() || signature.demands_more();
            if stands && says {
                self.primary.bind(signature, true);
            }
        }
    }

    /// The primary key's fingerprint in lower-case hex.
    pub(in super::super) fn fingerprint(&self) -> &str {
        &self.primary.key.fingerprint
    }

    /// The text of `message`, if the primary key or a subkey has signed it and may sign at `now`. A signature that
    /// does not hold is [`Rejection::WrongKey`]; the other refusals speak of one that does, or never could.
    pub(in super::super) fn open<'m>(&self, message: &'m Message, now: Timestamp) -> Result<&'m [u8], Rejection> {
        let Message { signature, text, digest } = message;
        if signature.kind() != BINARY {
            return Err(Rejection::Unreadable("an OpenPGP signature of another type".to_owned()));
        }
        let Some(digest) = digest else {
            return Err(Rejection::Weak(format!("made with {}", signature.hash_name())));
        };
        let mut keys = std::iter::once(&self.primary).chain(&self.subkeys);
        let standing = keys.find(|it| it.key.verifies_digest(signature, digest)).ok_or(Rejection::WrongKey)?;
        self.primary.signs_at(now)?;
        if !standing.signs_at(now)? {
            return Err(Rejection::KeyUse);
        }
        if signature.demands_more() {
            return Err(Rejection::Unreadable("a critical subpacket that is not known".to_owned()));
        }
        if signature.created().is_none_or(|made| made < standing.key.created) {
            return Err(Rejection::Unreadable("a signature older than its key, or without a time".to_owned()));
        }
        match signature.ends() {
            Some(end) if end <= now.0 => Err(Rejection::Expired(format!("the signature ended {}", Timestamp(end)))),
            _ => Ok(text),
        }
    }
}

impl Standing {
    fn of(body: &[u8]) -> Result<Self, String> {
        Ok(Self { key: PublicKey::parse(body)?, revoked: false, bindings: Vec::new() })
    }

    /// Takes a binding whose signature holds; `agreed` is whether the key itself has agreed to sign.
    fn bind(&mut self, signature: &Signature, agreed: bool) {
        let Some(made) = signature.created() else { return };
        self.bindings.push(Binding {
            understood: !signature.demands_more(),
            made,
            ends: signature.ends(),
            key_ends: signature.key_ends(self.key.created),
            signs: signature.allows_signing() && agreed,
        });
    }

    /// Whether the key is for signing by the owner's newest word at `now`, if it is good then. Words of one second
    /// have no order, and the strictest counts.
    fn signs_at(&self, now: Timestamp) -> Result<bool, Rejection> {
        if self.revoked {
            return Err(Rejection::Revoked);
        }
        if self.key.created > now.0 {
            return Err(Rejection::Expired(format!("the key begins {}", Timestamp(self.key.created))));
        }
        let known = || self.bindings.iter().filter(|it| it.made <= now.0 && it.ends.is_none_or(|end| end > now.0));
        let newest = known().map(|it| it.made).max();
        let newest = newest.ok_or_else(|| Rejection::Expired("nothing binds the key any more, or yet".to_owned()))?;
        let words = || known().filter(|it| it.made == newest);
        if words().any(|it| !it.understood) {
            return Err(Rejection::Unreadable("a critical subpacket that is not known, about the key".to_owned()));
        }
        match words().filter_map(|it| it.key_ends).min() {
            Some(end) if end <= now.0 => Err(Rejection::Expired(format!("the key ended {}", Timestamp(end)))),
            _ => Ok(words().all(|it| it.signs)),
        }
    }
}

/// A name as signatures on it hash it.
fn name(head: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[head], length.as_slice(), body].concat()
}

/// The file without its armour, where it has one.
fn binary(bytes: &[u8]) -> Result<Vec<u8>, String> {
    // Every binary packet has its first bit set.
    if bytes.first().is_none_or(|first| first & 0x80 != 0) {
        return Ok(bytes.to_vec());
    }
    let problem = "neither a binary OpenPGP key nor one in a single armour";
    let text = std::str::from_utf8(bytes).map_err(|_| problem)?;
    let inside = text.trim().strip_prefix(BEGIN).and_then(|text| text.strip_suffix(END)).ok_or(problem)?;
    // Headers end with an empty line; the checksum is a line that no base64 begins like.
    let mut lines = inside.lines().map(str::trim).skip(1).skip_while(|line| !line.is_empty());
    let base64: String = lines.by_ref().take_while(|line| !line.starts_with('=')).collect();
    if lines.next().is_some() {
        return Err(problem.to_owned());
    }
    encoding::un_b64(&base64).map_err(|_| problem.to_owned())
}

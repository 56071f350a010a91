//! A CoRIM's tags: CoMIDs with their reference triples. Everything within one of these is understood or refused.

use ciborium::Value;
use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::time::Timestamp;

use super::cbor::{self, Map};
use super::table::{self, Class, Key};
use super::{Contents, CorimError, Meta, Told, environment};
use crate::document::{Document, TYPE};
use crate::names::{self, References};

const CORIM: u64 = 501;
const COSWID: u64 = 505;
const COMID: u64 = 506;
/// The most tags of one CoRIM.
const MAX_TAGS: usize = 64;

/// What all documents of one CoRIM share.
struct Frame<'m> {
    issuer: &'m str,
    from: Timestamp,
    until: Timestamp,
    environment: Environment,
}

/// Reads a tagged CoRIM.
pub(crate) fn read(bytes: &[u8], meta: &Meta) -> Result<Contents, CorimError> {
    let value = cbor::item(bytes)?;
    let Value::Tag(CORIM, corim) = &value else { return Err(CorimError::new("is not under tag 501")) };
    let corim = Map::of(corim, "CoRIM")?;
    // Identity, tags, other manifests, profile, validity, entities.
    corim.only(&[0, 1, 2, 3, 4, 5])?;
    cbor::name(corim.need(0, "an identity")?, "identity")?;
    let (from, until) = match corim.get(4).map(cbor::validity).transpose()? {
        Some((from, until)) => (from, Some(until)),
        None => (None, None),
    };
    let until = [until, meta.until].into_iter().flatten().min();
    let frame = Frame {
        issuer: &meta.issuer,
        from: from.max(meta.from).unwrap_or(Timestamp(0)),
        until: until.ok_or_else(|| CorimError::new("says nowhere until when it is valid"))?,
        environment: environment(profile(corim.get(3))?)?,
    };
    let tags = cbor::array(corim.need(1, "tags")?, "tags")?;
    if tags.len() > MAX_TAGS {
        return Err(CorimError::new(format!("has more than {MAX_TAGS} tags")));
    }
    let mut contents = Contents { told: Vec::new(), ignored: Vec::new() };
    if corim.get(2).is_some() {
        contents.ignored.push("the manifests that it depends on".to_owned());
    }
    for tag in tags {
        match tag {
            Value::Tag(COMID, inner) => comid(cbor::bytes(inner, "CoMID")?, &frame, &mut contents)?,
            Value::Tag(COSWID, _) => contents.ignored.push("a CoSWID".to_owned()),
            // A list of tags that count only together would be one.
            _ => return Err(CorimError::new("has a tag that is neither CoMID nor CoSWID")),
        }
    }
    if contents.told.is_empty() {
        return Err(CorimError::new("has no reference triples"));
    }
    Ok(contents)
}

/// One URI, as itself or as a list of one.
fn profile(value: Option<&Value>) -> Result<Option<&str>, CorimError> {
    let value = match value {
        Some(Value::Array(one)) => match one.as_slice() {
            [value] => Some(value),
            _ => return Err(CorimError::new("has several profiles")),
        },
        other => other,
    };
    match value {
        None => Ok(None),
        Some(Value::Tag(32, uri)) => Ok(Some(cbor::text(uri, "profile")?)),
        Some(_) => Err(CorimError::new("has a profile that is no URI")),
    }
}

fn comid(bytes: &[u8], frame: &Frame<'_>, contents: &mut Contents) -> Result<(), CorimError> {
    let value = cbor::item(bytes)?;
    let comid = Map::of(&value, "CoMID")?;
    // Language, identity, entities, linked tags, triples.
    comid.only(&[0, 1, 2, 3, 4])?;
    let identity = Map::of(comid.need(1, "an identity")?, "tag identity")?;
    identity.only(&[0, 1])?;
    let series = cbor::name(identity.need(0, "a tag-id")?, "tag-id")?;
    let triples = Map::of(comid.need(4, "triples")?, "set of triples")?;
    for kind in triples.keys().filter(|kind| *kind != 0) {
        contents.ignored.push(format!("triples of kind {kind} in `{series}`"));
    }
    let Some(records) = triples.get(0) else { return Ok(()) };
    let version = identity.get(1).and_then(Value::as_integer).and_then(|version| u64::try_from(version).ok());
    let mut values = References::default();
    for record in cbor::array(records, "reference triples")? {
        triple(record, &mut values)?;
    }
    let document = Document {
        document_type: TYPE.to_owned(),
        issuer: frame.issuer.to_owned(),
        series,
        version: version.ok_or_else(|| CorimError::new("has a CoMID with reference triples without a tag-version"))?,
        issued_at: frame.from,
        expires: frame.until,
        environment: frame.environment,
        values,
    };
    document.check().map_err(|error| CorimError::new(format!("has a CoMID that cannot be meant: {error}")))?;
    contents.told.push(Told { document, comid: Sha256Digest::of(bytes) });
    Ok(())
}

/// `[environment, [+ measurement]]`.
fn triple(record: &Value, values: &mut References) -> Result<(), CorimError> {
    let [environment, claims] = cbor::array(record, "members of a reference triple")? else {
        return Err(CorimError::new("has a reference triple that is no pair"));
    };
    let environment = Map::of(environment, "environment")?;
    // An instance or a group would narrow what is expected.
    environment.only(&[0])?;
    let class = class(environment.need(0, "a class")?)?;
    for claim in cbor::array(claims, "measurements")? {
        measurement(&class, claim, values)?;
    }
    Ok(())
}

fn class(value: &Value) -> Result<Class, CorimError> {
    let class = Map::of(value, "class")?;
    match (class.get(0), class.get(1), class.get(2)) {
        (Some(Value::Tag(37, id)), None, None) => {
            class.only(&[0])?;
            let id = cbor::bytes(id, "class-id")?.try_into();
            id.map(Class::Uuid).map_err(|_| CorimError::new("has a class-id that is no UUID"))
        }
        (None, Some(vendor), Some(model)) => {
            class.only(&[1, 2])?;
            Ok(Class::Model(cbor::text(vendor, "vendor")?.to_owned(), cbor::text(model, "model")?.to_owned()))
        }
        _ => Err(CorimError::new("has a class that is neither a UUID nor vendor and model")),
    }
}

fn measurement(class: &Class, claim: &Value, values: &mut References) -> Result<(), CorimError> {
    let measurement = Map::of(claim, "measurement")?;
    measurement.only(&[0, 1])?;
    let key = match measurement.need(0, "a key")? {
        Value::Integer(number) => u32::try_from(*number).ok().map(Key::Number),
        Value::Text(text) => Some(Key::Text(text.clone())),
        _ => None,
    };
    let key = key.ok_or_else(|| CorimError::new("has a measurement's key that is neither a number nor text"))?;
    let name = table::name(class, &key)
        .ok_or_else(|| CorimError::new(format!("has a measurement that is not understood: {class:?}, {key:?}")))?;
    let wanted = names::size(&name).and_then(table::algorithm);
    let mval = Map::of(measurement.need(1, "a value")?, "measurement's value")?;
    // Anything beside digests would be one more condition.
    mval.only(&[2])?;
    let [digest] = cbor::array(mval.need(2, "digests")?, "digests")? else {
        return Err(CorimError::new(format!("has several digests of {name}")));
    };
    let [algorithm, value] = cbor::array(digest, "members of a digest")? else {
        return Err(CorimError::new("has a digest that is no pair"));
    };
    let same = wanted.is_some_and(|(number, text)| match algorithm {
        Value::Integer(shown) => *shown == number.into(),
        Value::Text(shown) => shown == text,
        _ => false,
    });
    if !same {
        return Err(CorimError::new(format!("has a digest of {name} of another algorithm")));
    }
    let hex: String = cbor::bytes(value, "digest")?.iter().map(|byte| format!("{byte:02x}")).collect();
    values.add(&name, &hex).map_err(|error| CorimError::new(format!("has a digest that is none: {error}")))
}

//! SEV-SNP reports.

#![allow(clippy::result_large_err)] // a refusal ends the command: its size is no matter

use std::path::PathBuf;

use endorsements::Directory;
use protocols::kbs::{SnpCertificate, SnpEvidence};
use protocols::reason::{self, Refusal};
use protocols::snp::{Report, SnpError, TcbVersion};
use protocols::time::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Map, Value, json};
use verifier::snp::{AllowedChips, ExpectedMeasurement, SnpPolicy, TrustedArk, amd_roots, verify_snp_bytes};
use verifier::{RootError, SnpClaims, Trace};

use super::{Appraisal, Passed, bytes, collect, environment, exactly, needed, parsed, text};
use crate::cli::{EvidenceVerifyArguments, SnpArguments};
use crate::outcome::Failure;

/// What is not checked where its option is not given, by the names of the checks.
pub(super) type Unchecked = Vec<(&'static str, &'static str)>;

pub(super) fn verify(arguments: &EvidenceVerifyArguments, now: Timestamp) -> Result<Appraisal, Failure> {
    let options = &arguments.snp;
    let shown = arguments.evidence.as_ref().map(|path| parsed::<SnpEvidence>(path)).transpose()?;
    let report = match &shown {
        Some(shown) => Report::from_json(&shown.attestation_report).map_err(malformed)?.to_bytes().to_vec(),
        None => bytes(needed(options.report.as_ref(), "--report or --evidence")?)?,
    };
    let mut unchecked = Unchecked::new();
    // What only the asker can know is taken from the report where it was not given, and named as not checked.
    let own = Report::parse(&report).ok();
    let vek = match (&arguments.endorsements, &own) {
        // The host's own table, which the roots judge.
        (None, _) if options.vek.is_none() && shown.as_ref().is_some_and(|shown| shown.cert_chain.is_some()) => None,
        (Some(path), Some(own)) => {
            let name = collect::vek_name(own, options.product.as_deref())?;
            let found = Directory::new(path).vek(&name).map_err(collect::failure)?;
            Some(found.ok_or_else(|| Failure::file(&path.join(name.file()), "not there"))?)
        }
        // What is no report names nothing, and is refused for that.
        (Some(_), None) => Some(Vec::new()),
        (None, _) => Some(certificate(&bytes(needed(options.vek.as_ref(), "--vek or --endorsements")?)?)),
    };
    let policy = policy(arguments, own.as_ref(), &mut unchecked)?;
    let report_data = match &options.report_data {
        Some(text) => exactly(text, "--report-data")?,
        None => {
            unchecked.push(("report data", "--report-data HEX"));
            own.as_ref().map_or([0; 64], |own| own.fields().report_data)
        }
    };
    // The table names the kind that the report says it was signed with: the extensions must agree.
    let kind = own.as_ref().and_then(|own| own.fields().signing_key()).map_or("VCEK", |key| key.as_str());
    let certificates = match vek {
        Some(data) => vec![SnpCertificate { cert_type: kind.to_owned(), data }],
        None => shown.and_then(|shown| shown.cert_chain).unwrap_or_default(),
    };
    let mut trace = Trace::on();
    let result = verify_snp_bytes(&report, &certificates, &report_data, &policy, now, &mut trace)
        .and_then(|claims| host_data(options, claims, &mut unchecked, &mut trace));
    let result = result.map(|claims| Passed { simulated: claims.simulated(), claims: self::claims(&claims) });
    Ok(Appraisal { trace, unchecked, result })
}

pub(super) fn malformed(error: SnpError) -> Failure {
    let expected = "an SNP attestation report";
    Failure::by_command(Refusal::new(reason::EVIDENCE_MALFORMED, "SNP report", expected, error.to_string()))
}

/// The policy that the options make; `own` stands in for expectations that were not given.
pub(super) fn policy(
    arguments: &EvidenceVerifyArguments,
    own: Option<&Report>,
    unchecked: &mut Unchecked,
) -> Result<SnpPolicy, Failure> {
    let options = &arguments.snp;
    let minimum = match &options.minimum_tcb {
        Some(text) => tcb(text)?,
        None => {
            for name in ["current TCB", "reported TCB", "committed TCB", "launch TCB"] {
                unchecked.push((name, "--minimum-tcb TCB"));
            }
            TcbVersion::default()
        }
    };
    let measurements = if options.measurement.is_empty() {
        unchecked.push(("measurement", "--measurement HEX"));
        own.map(|own| own.fields().measurement).into_iter().collect()
    } else {
        options.measurement.iter().map(|text| exactly(text, "--measurement")).collect::<Result<_, _>>()?
    };
    let chips = if options.chip.is_empty() {
        AllowedChips::AnyChip
    } else {
        AllowedChips::Listed(options.chip.iter().map(|text| exactly(text, "--chip")).collect::<Result<_, _>>()?)
    };
    Ok(SnpPolicy {
        roots: roots(arguments, own, minimum, unchecked)?,
        measurements: ExpectedMeasurement::Listed(measurements),
        vmpl: options.vmpl,
        chips,
        providers: options.provider.clone(),
        environment: environment(arguments),
    })
}

fn roots(
    arguments: &EvidenceVerifyArguments,
    own: Option<&Report>,
    minimum: TcbVersion,
    unchecked: &mut Unchecked,
) -> Result<Vec<TrustedArk>, Failure> {
    let options = &arguments.snp;
    let mut roots = match &options.chain {
        None => amd_roots(minimum, minimum, minimum).map_err(|error| Failure::Fault(error.to_string()))?,
        Some(path) => {
            let wrong = |error: RootError| {
                let expected = "one self-signed ARK and what it issued";
                let actual = error.to_string();
                let code = reason::EVIDENCE_CHAIN;
                Failure::by_command(Refusal::new(code, path.display().to_string(), expected, actual))
            };
            vec![TrustedArk::from_pem(&text(path)?, false, minimum).map_err(wrong)?]
        }
    };
    let Some((path, crl)) = crl(arguments, own)? else {
        unchecked.push(("revocation", "--crl FILE"));
        return Ok(roots);
    };
    let mut refused = None;
    let mut found = false;
    for root in &mut roots {
        match root.clone().with_crl(&crl) {
            Ok(with) => {
                *root = with;
                found = true;
            }
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) if !found => {
            let (subject, expected) = (path.display().to_string(), "a revocation list of a trusted ARK");
            Err(Failure::by_command(Refusal::new(reason::EVIDENCE_CRL, subject, expected, error.to_string())))
        }
        _ => Ok(roots),
    }
}

/// The revocation list that was given, or else the one that the directory of endorsements has.
fn crl(arguments: &EvidenceVerifyArguments, own: Option<&Report>) -> Result<Option<(PathBuf, Vec<u8>)>, Failure> {
    let options = &arguments.snp;
    if let Some(path) = &options.crl {
        return Ok(Some((path.clone(), bytes(path)?)));
    }
    let (Some(path), Some(own)) = (&arguments.endorsements, own) else { return Ok(None) };
    let name = collect::vek_name(own, options.product.as_deref())?;
    let found = Directory::new(path).crl(&name).map_err(collect::failure)?;
    Ok(found.map(|crl| (path.join(name.crl_file()), crl)))
}

/// HOST_DATA against the option, whole.
fn host_data(
    options: &SnpArguments,
    claims: SnpClaims,
    unchecked: &mut Unchecked,
    trace: &mut Trace,
) -> Result<SnpClaims, Refusal> {
    let Some(expected) = &options.host_data else {
        unchecked.push(("HOST_DATA", "--host-data HEX"));
        return Ok(claims);
    };
    let actual = hex::encode(claims.host_data());
    trace.compare(("HOST_DATA", reason::EVIDENCE_INITDATA), &expected.to_ascii_lowercase(), &actual)?;
    Ok(claims)
}

/// DER as it is; PEM's first certificate as DER.
fn certificate(bytes: &[u8]) -> Vec<u8> {
    CertificateDer::from_pem_slice(bytes).map_or_else(|_| bytes.to_vec(), |der| der.as_ref().to_vec())
}

fn tcb(text: &str) -> Result<TcbVersion, Failure> {
    let wrong =
        || Failure::Usage(format!("--minimum-tcb {text}: expected bootloader=N,tee=N,snp=N,microcode=N[,fmc=N]"));
    let mut parts = [None; 5];
    for part in text.split(',') {
        let (name, value) = part.split_once('=').ok_or_else(wrong)?;
        let names = ["bootloader", "tee", "snp", "microcode", "fmc"];
        let place = names.iter().position(|known| *known == name).and_then(|place| parts.get_mut(place));
        let place = place.filter(|place| place.is_none()).ok_or_else(wrong)?;
        *place = Some(value.parse::<u8>().map_err(|_| wrong())?);
    }
    let [Some(bootloader), Some(tee), Some(snp), Some(microcode), fmc] = parts else { return Err(wrong()) };
    Ok(TcbVersion { fmc, bootloader, tee, snp, microcode })
}

pub(super) fn claims(claims: &SnpClaims) -> Map<String, Value> {
    let value = json!({
        "version": claims.version(),
        "measurement": hex::encode(claims.measurement()),
        "host_data": hex::encode(claims.host_data()),
        "report_id": hex::encode(claims.report_id()),
        "chip_id": hex::encode(claims.chip_id()),
        "policy": format!("{:#x}", claims.policy()),
        "reported_tcb": claims.reported_tcb().to_string(),
        "provider": claims.provider(),
    });
    value.as_object().cloned().unwrap_or_default()
}

/// Every field of a report, bytes in hex.
pub(super) fn show(bytes: &[u8]) -> Result<Value, Failure> {
    let report = Report::parse(bytes).map_err(|error| {
        let expected = "an SNP attestation report";
        Failure::by_command(Refusal::new(reason::EVIDENCE_MALFORMED, "SNP report", expected, error.to_string()))
    })?;
    let mut value = report.to_json();
    for member in value.as_object_mut().into_iter().flat_map(Map::values_mut) {
        let bytes: Option<Vec<u8>> = member
            .as_array()
            .and_then(|list| list.iter().map(|byte| byte.as_u64().and_then(|byte| byte.try_into().ok())).collect());
        if let Some(bytes) = bytes {
            *member = json!(hex::encode(bytes));
        }
    }
    if let Some(members) = value.as_object_mut() {
        members.remove("signature");
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimum_names_every_component_once() {
        let read = tcb("microcode=219,bootloader=4,tee=0,snp=24").unwrap();
        assert_eq!(read, TcbVersion { fmc: None, bootloader: 4, tee: 0, snp: 24, microcode: 219 });
        assert_eq!(tcb("bootloader=4,tee=0,snp=24,microcode=219,fmc=1").unwrap().fmc, Some(1));
        for text in [
            "",
            "bootloader=4",
            "bootloader=4,tee=0,snp=24,microcode=256",
            "bootloader=4,tee=0,snp=24,snp=24,microcode=1",
        ] {
            assert!(tcb(text).is_err(), "{text}");
        }
    }
}

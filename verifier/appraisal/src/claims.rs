//! Verified evidence as JSON: what policies are asked about and what tokens carry, under the names of `docs/claims.md`.
//! Bytes are lower-case hex.

use reference_values::names::{self, Measured};
use serde_json::{Map, Value, json};
use verifier::{AzureHardware, EvidenceClaims, SnpClaims, TcbVersion, TdxClaims, TpmClaims};

/// The claims of verified evidence. A name that is there was checked as `docs/claims.md` says.
#[must_use]
pub fn of(claims: &EvidenceClaims) -> Value {
    match claims {
        EvidenceClaims::Snp(claims) => snp(claims),
        EvidenceClaims::Tdx(claims) => tdx(claims),
        EvidenceClaims::Tpm(claims) => tpm(claims),
        EvidenceClaims::Sample(claims) => json!({ "svn": claims.svn() }),
        EvidenceClaims::Azure(claims) => {
            let mut value = tpm(claims.tpm());
            if let Value::Object(members) = &mut value {
                let hardware = match claims.hardware() {
                    AzureHardware::Snp(claims) => snp(claims),
                    AzureHardware::Tdx(claims) => tdx(claims),
                };
                members.insert("hardware".to_owned(), hardware);
                members.insert("vm-configuration".to_owned(), claims.configuration().clone());
            }
            value
        }
    }
}

/// What evidence measured, by the names of reference values.
#[must_use]
pub fn measured(claims: &EvidenceClaims) -> Vec<Measured> {
    let pcrs = |tpm: &TpmClaims| {
        let number = (0u32..).zip(tpm.pcrs());
        number.map(|(number, pcr)| (names::pcr(number), hex(pcr.as_bytes()))).collect::<Vec<_>>()
    };
    let td = |names: [&str; 4], claims: &TdxClaims| {
        let [rtmr0, rtmr1, rtmr2] = claims.boot_rtmrs();
        names.map(str::to_owned).into_iter().zip([*claims.mr_td(), rtmr0, rtmr1, rtmr2].map(|v| hex(&v)))
    };
    match claims {
        EvidenceClaims::Snp(claims) => vec![(names::SNP.to_owned(), hex(claims.measurement()))],
        EvidenceClaims::Tdx(claims) => td(names::TDX, claims).collect(),
        EvidenceClaims::Tpm(claims) => pcrs(claims),
        EvidenceClaims::Sample(_) => Vec::new(),
        EvidenceClaims::Azure(claims) => {
            let mut all = pcrs(claims.tpm());
            match claims.hardware() {
                AzureHardware::Snp(claims) => all.push((names::AZURE.to_owned(), hex(claims.measurement()))),
                AzureHardware::Tdx(claims) => all.extend(td(names::AZURE_TDX, claims)),
            }
            all
        }
    }
}

fn snp(claims: &SnpClaims) -> Value {
    json!({
        "version": claims.version(),
        "measurement": hex(claims.measurement()),
        "host_data": hex(claims.host_data()),
        "report_id": hex(claims.report_id()),
        "chip_id": hex(claims.chip_id()),
        "policy": claims.policy(),
        "reported_tcb": tcb(&claims.reported_tcb()),
        "provider": claims.provider(),
    })
}

fn tcb(tcb: &TcbVersion) -> Value {
    let mut parts = Map::new();
    if let Some(fmc) = tcb.fmc {
        parts.insert("fmc".to_owned(), fmc.into());
    }
    for (name, value) in
        [("bootloader", tcb.bootloader), ("tee", tcb.tee), ("snp", tcb.snp), ("microcode", tcb.microcode)]
    {
        parts.insert(name.to_owned(), value.into());
    }
    Value::Object(parts)
}

fn tdx(claims: &TdxClaims) -> Value {
    let report = claims.report();
    json!({
        "mr_td": hex(claims.mr_td()),
        "boot_rtmrs": claims.boot_rtmrs().map(|rtmr| hex(&rtmr)),
        "rtmr3": hex(claims.rtmr3()),
        "mr_config_id": hex(claims.mr_config_id()),
        // As text: JSON numbers beyond 2^53 are not exact everywhere.
        "td_attributes": format!("{:016x}", report.td_attributes.0),
        "xfam": format!("{:016x}", report.xfam.0),
        "tee_tcb_svn": hex(&report.tee_tcb_svn),
        "mr_seam": hex(&report.mr_seam),
        "mr_signer_seam": hex(&report.mr_signer_seam),
        "mr_owner": hex(&report.mr_owner),
        "mr_owner_config": hex(&report.mr_owner_config),
        "tcb_status": claims.tcb_status(),
        "advisories": claims.advisories(),
        "evaluation": claims.evaluation(),
        "fmspc": hex(claims.fmspc()),
        "platform": hex(claims.platform()),
    })
}

fn tpm(claims: &TpmClaims) -> Value {
    json!({
        "pcrs": claims.pcrs().map(|pcr| hex(pcr.as_bytes())),
        "reset_count": claims.reset_count(),
        "restart_count": claims.restart_count(),
        "clock": claims.clock(),
        "firmware_version": format!("{:016x}", claims.firmware_version()),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

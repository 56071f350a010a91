//! Hardware evidence and what firmware logged.

use protocols::register::HashAlg;
use protocols::tcg_log::TcgLog;
use protocols::tdx::{Quote, trim};

/// A TDX quote.
///
/// # Panics
/// When what was read is not what is written again.
pub fn tdx_quote(bytes: &[u8]) {
    if let Ok(quote) = Quote::parse(bytes) {
        assert_eq!(quote.encode(), bytes);
    }
    if let Ok(exact) = trim(bytes) {
        assert!(bytes.starts_with(exact));
    }
}

/// A firmware's log, of a TPM or of a TDX guest.
///
/// # Panics
/// When what was read is not what is written again.
pub fn tcg_log(bytes: &[u8]) {
    if let Ok(log) = TcgLog::parse(bytes) {
        assert!(bytes.starts_with(&log.encode()));
        for register in 0..5 {
            let _ = log.replay(register, HashAlg::Sha384);
            let _ = log.replay(register, HashAlg::Sha256);
        }
    }
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/data/vectors/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

pub(super) fn tdx_quotes() -> Vec<Vec<u8>> {
    let padded = file("tdx/tdx_quote");
    vec![trim(&padded).unwrap().to_vec(), file("tdx/tdx_quote_4.dat"), padded]
}

pub(super) fn tcg_logs() -> Vec<Vec<u8>> {
    let mut short = file("eventlog/CCEL_data_ovmf");
    short.truncate(2200);
    vec![short, file("eventlog/CCEL_AAEL_alibabacloud")]
}

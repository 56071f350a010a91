//! `reference`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::EnvironmentArgument;

#[derive(Debug, Subcommand)]
pub(crate) enum ReferenceCommand {
    /// Compute what a platform will measure of firmware, kernel and the like; prints what `sign` takes
    #[command(subcommand)]
    Compute(ComputeCommand),
    /// Sign reference values, for an attestor's [reference] files
    Sign(ReferenceSignArguments),
    /// Print what a file of reference values says, unverified
    Show(ReferenceShowArguments),
    /// Check a file of reference values against one signer, as an attestor would; 77 when it would be refused
    Verify(ReferenceVerifyArguments),
}

/// What a platform will measure; prints JSON that `reference sign` takes.
#[derive(Debug, Subcommand)]
pub(crate) enum ComputeCommand {
    /// The launch measurement of an SEV-SNP guest that QEMU starts from these files
    Snp(ComputeSnpArguments),
    /// PCRs 4, 9 and 11 of a UKI that firmware starts directly
    Tpm(ComputeTpmArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ComputeSnpArguments {
    /// The firmware, built for SEV
    #[arg(long, value_name = "FILE")]
    pub(crate) ovmf: PathBuf,
    /// The kernel that the hypervisor is given; needs firmware with room for its hashes (AmdSev)
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// Its initrd
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub(crate) initrd: Option<PathBuf>,
    /// Its command line, exactly
    #[arg(long, value_name = "TEXT", requires = "kernel")]
    pub(crate) cmdline: Option<String>,
    /// Virtual processors
    #[arg(long, value_name = "N")]
    pub(crate) vcpus: u32,
    /// Their type, as QEMU names it: EPYC-v4, EPYC-Milan, EPYC-Genoa, …
    #[arg(long, value_name = "TYPE")]
    pub(crate) vcpu_type: String,
    /// SEV features of the guest's processors, in hex as 0x1
    #[arg(long, value_name = "HEX", value_parser = hex_number)]
    pub(crate) guest_features: u64,
}

fn hex_number(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").ok_or("expected hex that begins with 0x")?;
    u64::from_str_radix(digits, 16).map_err(|error| error.to_string())
}

#[derive(Debug, Args)]
pub(crate) struct ComputeTpmArguments {
    /// The UKI: systemd-stub with kernel, initrd and command line inside
    #[arg(long, value_name = "FILE")]
    pub(crate) uki: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ReferenceSignArguments {
    /// JSON: {"name": ["hex", …], …}, or - for standard input; several files are taken together
    #[arg(value_name = "FILE", required = true)]
    pub(crate) values: Vec<PathBuf>,
    /// The private key, PKCS#8 PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// The signer's name in the attestor's configuration
    #[arg(long)]
    pub(crate) issuer: String,
    /// What the values are of; a version replaces those before it in its series whole
    #[arg(long)]
    pub(crate) series: String,
    /// Only goes up within its series
    #[arg(long)]
    pub(crate) version: u64,
    /// When it was issued, RFC 3339 in UTC; now otherwise. With it the same values give the same bytes
    #[arg(long, value_name = "TIME")]
    pub(crate) issued_at: Option<String>,
    /// From when on the values do not count, RFC 3339 in UTC
    #[arg(long, value_name = "TIME", conflicts_with = "days", required_unless_present = "days")]
    pub(crate) expires: Option<String>,
    /// That many days after it was issued, in place of --expires
    #[arg(long)]
    pub(crate) days: Option<u64>,
    /// Where the values count
    #[arg(long, value_enum, default_value = "production")]
    pub(crate) environment: EnvironmentArgument,
    /// The form of the file
    #[arg(long, value_enum, default_value = "json")]
    pub(crate) format: ReferenceFormat,
    /// The new file; an existing one is never overwritten
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReferenceFormat {
    /// A document in a DSSE envelope; keys on P-256 or Ed25519
    Json,
    /// A CoRIM in COSE_Sign1; keys on P-256 or P-384
    Corim,
}

#[derive(Debug, Args)]
pub(crate) struct ReferenceShowArguments {
    /// The file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ReferenceVerifyArguments {
    /// The file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The signer's public key, SPKI PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) signer: PathBuf,
    /// The signer's name
    #[arg(long)]
    pub(crate) issuer: String,
    /// Refuse versions below this one
    #[arg(long, default_value_t = 1)]
    pub(crate) min_version: u64,
    /// The time to check at, RFC 3339 in UTC; now otherwise
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
    /// The attestor's environment
    #[arg(long, value_enum, default_value = "production")]
    pub(crate) environment: EnvironmentArgument,
}

//! `evidence`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{AgentArguments, EvidenceCollectArguments, EvidenceDetectArguments};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct EvidenceArguments {
    #[command(subcommand)]
    pub(crate) command: Option<EvidenceCommand>,
    /// 16 to 64 bytes: ask the agent for evidence over SHA-384("tcl-evidence-v1" || challenge)
    #[arg(long, value_name = "HEX", required = true)]
    pub(crate) challenge: Option<String>,
    #[command(flatten)]
    pub(crate) agent: AgentArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EvidenceCommand {
    /// Print what of each platform this machine has, and what is missing
    Detect(EvidenceDetectArguments),
    /// Collect evidence of this machine over a challenge, without an agent, as JSON for `evidence verify`
    Collect(EvidenceCollectArguments),
    /// Verify evidence in files, offline: every check with what it expects and what it finds; 77 when one refuses
    Verify(Box<EvidenceVerifyArguments>),
    /// Fetch what AMD or Intel says of the machine that made evidence, and keep it once the evidence verifies with it;
    /// 69 when the service does not give it, 77 when it does not fit
    CollectEndorsements(Box<CollectArguments>),
    /// Print what evidence in a file says, without verifying any of it
    Show(EvidenceShowArguments),
    /// Make a SIMULATED SNP report from readable text, under roots of its own
    Simulate(EvidenceSimulateArguments),
}

/// Kinds of evidence, by their names in the KBS protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TeeArgument {
    /// AMD SEV-SNP: --report and --vek, or --evidence
    Snp,
    /// Azure confidential VM on SEV-SNP: --evidence
    AzSnpVtpm,
    /// Azure confidential VM on TDX: --evidence, --collateral
    AzTdxVtpm,
    /// Intel TDX: --quote or --evidence, and --collateral
    Tdx,
    /// TPM 2.0: --evidence
    Tpm,
}

/// Every security input that is left out is named as not checked in the output.
#[derive(Debug, Clone, Args)]
pub(crate) struct EvidenceVerifyArguments {
    /// The kind of evidence
    #[arg(long)]
    pub(crate) tee: TeeArgument,
    /// The time to verify at: 2026-01-02 or 2026-01-02T03:04:05Z
    #[arg(long, value_name = "TIME")]
    pub(crate) at: String,
    /// Accept simulated roots and keys; they are named in the output
    #[arg(long)]
    pub(crate) allow_simulated: bool,
    /// Evidence as JSON, as an attester sends it
    #[arg(long, value_name = "FILE")]
    pub(crate) evidence: Option<PathBuf>,
    /// The challenge that `evidence collect` or the agent was given: the nonce or report data follow from it
    #[arg(long, value_name = "HEX", conflicts_with_all = ["nonce", "report_data"])]
    pub(crate) challenge: Option<String>,
    /// A directory of endorsements: the VEK's certificate and revocation list, or the collateral, are taken from there
    #[arg(long, value_name = "DIR", conflicts_with_all = ["vek", "collateral"])]
    pub(crate) endorsements: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) snp: SnpArguments,
    #[command(flatten)]
    pub(crate) tdx: TdxArguments,
    #[command(flatten)]
    pub(crate) tpm: TpmArguments,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Intel TDX")]
pub(crate) struct TdxArguments {
    /// The quote; zero bytes behind it are cut
    #[arg(long, value_name = "FILE", conflicts_with = "evidence")]
    pub(crate) quote: Option<PathBuf>,
    /// The platform's collateral as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) collateral: Option<PathBuf>,
    /// PEM: the root to trust in place of Intel's own
    #[arg(long, value_name = "FILE")]
    pub(crate) root: Option<PathBuf>,
    /// A TCB status that counts; may be repeated; UpToDate otherwise
    #[arg(long, value_name = "STATUS")]
    pub(crate) tcb_status: Vec<String>,
    /// An advisory that may be open; may be repeated
    #[arg(long, value_name = "ID")]
    pub(crate) advisory: Vec<String>,
    /// The lowest evaluation data number of the collateral
    #[arg(long, value_name = "NUMBER")]
    pub(crate) minimum_evaluation: Option<u32>,
    /// An MRTD that counts, 48 bytes; may be repeated
    #[arg(long, value_name = "HEX")]
    pub(crate) mrtd: Vec<String>,
    /// An RTMR0 that counts, 48 bytes; may be repeated
    #[arg(long, value_name = "HEX")]
    pub(crate) rtmr0: Vec<String>,
    /// An RTMR1 that counts, 48 bytes; may be repeated
    #[arg(long, value_name = "HEX")]
    pub(crate) rtmr1: Vec<String>,
    /// An RTMR2 that counts, 48 bytes; may be repeated
    #[arg(long, value_name = "HEX")]
    pub(crate) rtmr2: Vec<String>,
    /// MRCONFIGID, 48 bytes: SHA-384 of the initdata
    #[arg(long, value_name = "HEX")]
    pub(crate) mrconfigid: Option<String>,
    /// On Azure alone: a TD started without SEPT_VE_DISABLE counts, as Azure starts its own
    #[arg(long)]
    pub(crate) without_sept_ve_disable: bool,
    /// The firmware's log (CCEL), which must lead to RTMR0 to RTMR2
    #[arg(long, value_name = "FILE")]
    pub(crate) ccel: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "SEV-SNP")]
pub(crate) struct SnpArguments {
    /// The report, 1184 bytes
    #[arg(long, value_name = "FILE", conflicts_with = "evidence")]
    pub(crate) report: Option<PathBuf>,
    /// The VCEK's or VLEK's certificate, DER or PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) vek: Option<PathBuf>,
    /// PEM: the ARK to trust in place of AMD's own, and the ASK or ASVK it issued
    #[arg(long, value_name = "FILE")]
    pub(crate) chain: Option<PathBuf>,
    /// Milan, Genoa or Turin: finds the VEK of a version 2 report in a directory
    #[arg(long, value_name = "NAME")]
    pub(crate) product: Option<String>,
    /// The ARK's revocation list, DER; needs --chain, or the product's own root of AMD
    #[arg(long, value_name = "FILE")]
    pub(crate) crl: Option<PathBuf>,
    /// The report data that was asked for, 64 bytes
    #[arg(long, value_name = "HEX")]
    pub(crate) report_data: Option<String>,
    /// A launch measurement that counts, 48 bytes; may be repeated
    #[arg(long, value_name = "HEX")]
    pub(crate) measurement: Vec<String>,
    /// HOST_DATA, 32 bytes: SHA-256 of the initdata
    #[arg(long, value_name = "HEX")]
    pub(crate) host_data: Option<String>,
    /// The lowest TCB, such as bootloader=4,tee=0,snp=24,microcode=219 (and fmc=1 on Turin)
    #[arg(long, value_name = "TCB")]
    pub(crate) minimum_tcb: Option<String>,
    /// The privilege level that the report must come from
    #[arg(long, default_value_t = 0)]
    pub(crate) vmpl: u32,
    /// A chip that counts, 64 bytes; may be repeated; any otherwise
    #[arg(long, value_name = "HEX")]
    pub(crate) chip: Vec<String>,
    /// CSP_ID of a provider whose VLEK counts; may be repeated; only VCEKs otherwise
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Vec<String>,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "TPM and vTPM")]
pub(crate) struct TpmArguments {
    /// The nonce that was asked for
    #[arg(long, value_name = "HEX")]
    pub(crate) nonce: Option<String>,
    /// The attestation key to trust, SPKI PEM; on Azure the hardware report vouches for it
    #[arg(long, value_name = "FILE")]
    pub(crate) ak: Option<PathBuf>,
}

/// Kinds of evidence whose endorsement a service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EndorsedArgument {
    /// AMD SEV-SNP: a VCEK, from a KDS
    Snp,
    /// Intel TDX: collateral, from a PCCS
    Tdx,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("from-evidence").required(true).args(["report", "evidence", "quote"]))]
pub(crate) struct CollectArguments {
    /// The kind of evidence
    #[arg(long)]
    pub(crate) tee: EndorsedArgument,
    /// SEV-SNP: the report, 1184 bytes
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Evidence as JSON, as an attester sends it
    #[arg(long, value_name = "FILE")]
    pub(crate) evidence: Option<PathBuf>,
    /// Intel TDX: the quote
    #[arg(long, value_name = "FILE")]
    pub(crate) quote: Option<PathBuf>,
    /// The service: https, or http on this machine
    #[arg(long, value_name = "URL")]
    pub(crate) from: String,
    /// The directory to keep it in; what is there and still good is not asked for again
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// The time to verify at; now otherwise
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
    /// Accept simulated roots and keys
    #[arg(long)]
    pub(crate) allow_simulated: bool,
    /// SEV-SNP: Milan, Genoa or Turin, for reports of version 2, which do not tell
    #[arg(long, value_name = "NAME")]
    pub(crate) product: Option<String>,
    /// SEV-SNP: fetch the product's revocation list too, and verify with it
    #[arg(long)]
    pub(crate) crl: bool,
    /// SEV-SNP, PEM: the ARK to trust in place of AMD's own, and the ASK it issued
    #[arg(long, value_name = "FILE")]
    pub(crate) chain: Option<PathBuf>,
    /// Intel TDX, PEM: the root to trust in place of Intel's own
    #[arg(long, value_name = "FILE")]
    pub(crate) root: Option<PathBuf>,
    /// Intel TDX: a TCB status that counts; may be repeated; UpToDate otherwise
    #[arg(long, value_name = "STATUS")]
    pub(crate) tcb_status: Vec<String>,
    /// Intel TDX: an advisory that may be open; may be repeated
    #[arg(long, value_name = "ID")]
    pub(crate) advisory: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct EvidenceShowArguments {
    /// The kind of evidence
    #[arg(long)]
    pub(crate) tee: TeeArgument,
    /// A report as bytes (snp), or evidence as JSON
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct EvidenceSimulateArguments {
    /// TOML: product (milan, turin), version, provider, tcb, policy (smt, debug, migrate, single-socket), vmpl, and in
    /// hex report_data, host_data, measurement, report_id
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The folder to make: roots, keys, report.bin, vek.der, chain.pem
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}

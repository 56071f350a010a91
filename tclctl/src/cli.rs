//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Launch containers that were measured, appraised and logged first; sign images; read logs.
#[derive(Debug, Parser)]
#[command(name = "tclctl", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit status: the workload's own; 77 refused (NOT verified: <code>), 64 usage, 69 a service is \
                        unavailable, 70 a fault, 74 input or output failed."
)]
pub(crate) struct Cli {
    /// Print JSON, one value; failures too, on standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Launch a container and stay with it until it ends
    Run(Box<RunArguments>),
    /// Print exactly what `golden push` would sign, as canonical JSON; needs no privileges
    Measure(MeasureArguments),
    /// Keys, golden values and revocations
    #[command(subcommand)]
    Golden(GoldenCommand),
    /// Small reproducible images
    #[command(subcommand)]
    Image(ImageCommand),
    /// The guest's event log
    #[command(subcommand)]
    Log(LogCommand),
    /// Explain a reason code, or a decision the attestor has recorded
    Explain(ExplainArguments),
    /// List containers
    List(AgentArguments),
    /// Stop a container
    Stop(StopArguments),
    /// What the agent is and how far its log has come
    Status(AgentArguments),
    /// Evidence over a challenge: SHA-384("tcl-evidence-v1" || challenge) is quoted
    Evidence(EvidenceArguments),
    /// The TPM's attestation key
    #[command(subcommand)]
    Ak(AkCommand),
    /// Things for development that are SIMULATED
    #[command(subcommand)]
    Simulated(SimulatedCommand),
    /// Print the table of reason codes
    #[command(hide = true)]
    ReasonCodes(ReasonCodesArguments),
    /// Print a shell's completion script
    Completions {
        /// bash, zsh, fish, …
        shell: clap_complete::Shell,
    },
}

/// Where the agent listens.
#[derive(Debug, Clone, Args)]
pub(crate) struct AgentArguments {
    /// The agent's socket
    #[arg(
        long,
        env = "TCL_AGENT",
        value_name = "unix:///PATH",
        default_value = "unix:///run/trusted-container-launcher/agent.sock"
    )]
    pub(crate) agent: String,
}

/// How the registry is reached.
#[derive(Debug, Clone, Args)]
pub(crate) struct RegistryArguments {
    /// Ask this registry over plain HTTP, as written in the reference; may be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) plain_http: Vec<String>,
    /// Docker-style file with credentials
    #[arg(long, value_name = "FILE")]
    pub(crate) auth_file: Option<PathBuf>,
    /// PEM file with TLS roots to trust beside the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) registry_root: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeArgument {
    /// Decided in the guest
    Local,
    /// Decided by the remote attestor
    Remote,
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// registry/repository:tag or @sha256:digest
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    #[command(flatten)]
    pub(crate) agent: AgentArguments,
    /// Where it is decided; the measured configuration's default otherwise
    #[arg(long)]
    pub(crate) mode: Option<ModeArgument>,
    /// Environment entry beside or instead of the image's own; may be repeated
    #[arg(long, short = 'e', value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// User, as `name`, `uid` or either with `:group`
    #[arg(long, short = 'u')]
    pub(crate) user: Option<String>,
    /// Working directory
    #[arg(long, short = 'w', value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Mount: type=bind,source=PATH,destination=PATH, then readonly or other options; may be repeated
    #[arg(long, value_name = "MOUNT")]
    pub(crate) mount: Vec<String>,
    /// The container's id; chosen by chance otherwise
    #[arg(long, value_name = "ID")]
    pub(crate) name: Option<String>,
    /// Keep standard input open
    #[arg(long, short = 'i')]
    pub(crate) interactive: bool,
    /// Give the workload a terminal
    #[arg(long, short = 't')]
    pub(crate) tty: bool,
    /// Write a JSON file that says who produced the exit status
    #[arg(long, value_name = "FILE")]
    pub(crate) status_file: Option<PathBuf>,
    /// The command; the image's own otherwise
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

/// What goes into a golden value beside the image.
#[derive(Debug, Args)]
pub(crate) struct IssueArguments {
    /// When it ends, RFC 3339 in UTC; one year after it was issued otherwise
    #[arg(long, value_name = "TIME", conflicts_with = "days")]
    pub(crate) expires: Option<String>,
    /// Ends that many days from now, at the end of the day (UTC)
    #[arg(long)]
    pub(crate) days: Option<u64>,
    /// When it was issued, RFC 3339 in UTC; the image's creation otherwise
    #[arg(long, value_name = "TIME")]
    pub(crate) issued_at: Option<String>,
    /// Versions only go up within a series; `repository platform tag` otherwise
    #[arg(long)]
    pub(crate) series: Option<String>,
    /// JSON file with the process policy; only the image's own process otherwise
    #[arg(long, value_name = "FILE")]
    pub(crate) process: Option<PathBuf>,
    /// Where it may be used
    #[arg(long, value_enum, default_value = "production")]
    pub(crate) environment: EnvironmentArgument,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EnvironmentArgument {
    /// Real hardware, real keys
    Production,
    /// Simulated roots count
    Development,
}

#[derive(Debug, Args)]
pub(crate) struct MeasureArguments {
    /// The image; an index gives one line per platform
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    /// The signer's name in the measured configuration
    #[arg(long, default_value = "unnamed")]
    pub(crate) issuer: String,
    /// The golden value's version
    #[arg(long, default_value_t = 1)]
    pub(crate) version: u64,
    #[command(flatten)]
    pub(crate) issue: IssueArguments,
    #[command(flatten)]
    pub(crate) registry: RegistryArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GoldenCommand {
    /// Make a signing key: FILE (private, 0600) and FILE.pub
    Keygen(KeygenArguments),
    /// Measure an image, sign its golden value and store it beside the image
    Push(GoldenPushArguments),
    /// Print what is stored for an image, unverified
    Show(GoldenShowArguments),
    /// Check the golden value of an image against one signer
    Verify(GoldenVerifyArguments),
    /// Put an image's golden values on the repository's revocation list
    Revoke(GoldenRevokeArguments),
    /// Copy what is stored for an image to the attestor, for guests that take golden values from there
    Publish(GoldenPublishArguments),
}

#[derive(Debug, Args)]
pub(crate) struct KeygenArguments {
    /// The private key's file; never overwritten
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Ed25519 instead of ECDSA P-256
    #[arg(long)]
    pub(crate) ed25519: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GoldenPushArguments {
    /// The image; an index gets one golden value per platform
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    /// The private key, PKCS#8 PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// The signer's name in the measured configuration
    #[arg(long)]
    pub(crate) issuer: String,
    /// The golden value's version: only goes up within its series
    #[arg(long)]
    pub(crate) version: u64,
    #[command(flatten)]
    pub(crate) issue: IssueArguments,
    #[command(flatten)]
    pub(crate) registry: RegistryArguments,
}

#[derive(Debug, Args)]
pub(crate) struct GoldenShowArguments {
    /// The image
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    #[command(flatten)]
    pub(crate) registry: RegistryArguments,
}

#[derive(Debug, Args)]
pub(crate) struct GoldenVerifyArguments {
    /// The image
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    /// The signer's public key, SPKI PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) signer: PathBuf,
    /// The signer's name
    #[arg(long)]
    pub(crate) issuer: String,
    /// Refuse versions below this one
    #[arg(long, default_value_t = 1)]
    pub(crate) min_version: u64,
    #[command(flatten)]
    pub(crate) registry: RegistryArguments,
}

#[derive(Debug, Args)]
pub(crate) struct GoldenRevokeArguments {
    /// The image whose golden values by this issuer are revoked
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    /// The private key, PKCS#8 PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// The signer's name in the measured configuration
    #[arg(long)]
    pub(crate) issuer: String,
    /// The list goes stale that many days from now
    #[arg(long, default_value_t = 365)]
    pub(crate) days: u64,
    #[command(flatten)]
    pub(crate) registry: RegistryArguments,
}

#[derive(Debug, Args)]
pub(crate) struct GoldenPublishArguments {
    /// The image
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    /// The attestor's address
    #[arg(long, value_name = "URL", env = "TCL_ATTESTOR")]
    pub(crate) attestor: String,
    /// File with the attestor's administration token
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token: PathBuf,
    #[command(flatten)]
    pub(crate) registry: RegistryArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Build an image from folders, the same bytes every time, and push it
    Push(ImagePushArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ImagePushArguments {
    /// registry/repository:tag
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    /// Folder of the lowest layer
    #[arg(long, value_name = "DIR")]
    pub(crate) rootfs: PathBuf,
    /// Folder of a further layer; may be repeated
    #[arg(long, value_name = "DIR")]
    pub(crate) layer: Vec<PathBuf>,
    /// One argument of the entrypoint; may be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) entrypoint: Vec<String>,
    /// One argument of the command; may be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) cmd: Vec<String>,
    /// Environment entry; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// User
    #[arg(long, default_value = "")]
    pub(crate) user: String,
    /// Working directory
    #[arg(long, default_value = "/")]
    pub(crate) workdir: String,
    /// os/architecture
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// The image's creation, RFC 3339 in UTC
    #[arg(long, value_name = "TIME", default_value = "1970-01-01T00:00:00Z")]
    pub(crate) created: String,
    #[command(flatten)]
    pub(crate) registry: RegistryArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Print the records, one line each
    Show(LogShowArguments),
    /// Write header, records and end mark to a file
    Export(LogExportArguments),
    /// Replay the log and compare with the register
    Verify(LogVerifyArguments),
}

#[derive(Debug, Args)]
pub(crate) struct LogShowArguments {
    /// An exported log; the agent's own otherwise
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) agent: AgentArguments,
}

#[derive(Debug, Args)]
pub(crate) struct LogExportArguments {
    /// The file to write
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) agent: AgentArguments,
}

#[derive(Debug, Args)]
pub(crate) struct LogVerifyArguments {
    /// An exported log; the agent's own otherwise
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Read the register from this TPM instead of asking the agent
    #[arg(long, value_name = "/dev/tpmrm0|unix:/PATH|tcp:HOST:PORT", conflicts_with = "register")]
    pub(crate) pcr_device: Option<String>,
    /// The PCR to read; the one the log names otherwise
    #[arg(long, requires = "pcr_device")]
    pub(crate) pcr: Option<u32>,
    /// Compare with this value, which you have read or had attested yourself
    #[arg(long, value_name = "sha256:HEX|sha384:HEX")]
    pub(crate) register: Option<String>,
    #[command(flatten)]
    pub(crate) agent: AgentArguments,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    /// A reason code such as golden.rollback, or the id of a recorded decision
    #[arg(value_name = "CODE|ID")]
    pub(crate) what: String,
    /// The attestor's address, for an id
    #[arg(long, value_name = "URL", env = "TCL_ATTESTOR")]
    pub(crate) attestor: Option<String>,
    /// File with the attestor's administration token, for an id
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct StopArguments {
    /// The container's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Send only this signal; SIGTERM and after the grace period SIGKILL otherwise
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) signal: u32,
    /// Seconds between SIGTERM and SIGKILL
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) grace: u32,
    #[command(flatten)]
    pub(crate) agent: AgentArguments,
}

#[derive(Debug, Args)]
pub(crate) struct EvidenceArguments {
    /// 16 to 64 bytes
    #[arg(long, value_name = "HEX")]
    pub(crate) challenge: String,
    #[command(flatten)]
    pub(crate) agent: AgentArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AkCommand {
    /// Print the public attestation key as PEM, for the attestor to enrol
    Show(AkShowArguments),
}

#[derive(Debug, Args)]
pub(crate) struct AkShowArguments {
    /// The TPM
    #[arg(long, value_name = "/dev/tpmrm0|unix:/PATH|tcp:HOST:PORT", default_value = "/dev/tpmrm0")]
    pub(crate) device: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SimulatedCommand {
    /// Make the SIMULATED roots and chip keys of one installation
    Pki(SimulatedPkiArguments),
}

#[derive(Debug, Args)]
pub(crate) struct SimulatedPkiArguments {
    /// The folder to make
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ReasonCodesArguments {
    /// As the page docs/reason-codes.md
    #[arg(long)]
    pub(crate) markdown: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_after_two_dashes_is_the_workloads_alone() {
        let cli = Cli::try_parse_from(["tclctl", "run", "r/i:t", "--", "sh", "-c", "--json"]).unwrap();
        let Command::Run(run) = cli.command else { panic!("run") };
        assert!(!cli.json);
        assert_eq!(run.command, ["sh", "-c", "--json"]);
    }
}

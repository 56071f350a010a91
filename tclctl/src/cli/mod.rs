//! The command line: one module for each group of commands.

mod appraise;
mod audit;
mod evidence;
mod explain;
mod golden;
mod image;
mod kbs;
mod keys;
mod launch;
mod log;
mod platform;
mod policy;
mod reference;
mod store;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use self::appraise::AppraiseArguments;
pub(crate) use self::audit::{
    AuditCommand, AuditExportArguments, AuditProveArguments, AuditShowArguments, AuditVerifyArguments, AuditedArguments,
};
pub(crate) use self::evidence::{
    CollectArguments, EndorsedArgument, EvidenceArguments, EvidenceCommand, EvidenceShowArguments,
    EvidenceSimulateArguments, EvidenceVerifyArguments, SnpArguments, TdxArguments, TeeArgument, TpmArguments,
};
pub(crate) use self::explain::{ExplainArguments, ReasonCodesArguments};
pub(crate) use self::golden::{
    EnvironmentArgument, GoldenCommand, GoldenPublishArguments, GoldenPushArguments, GoldenRevokeArguments,
    GoldenShowArguments, GoldenVerifyArguments, IssueArguments, KeygenArguments, MeasureArguments,
};
pub(crate) use self::image::{DecryptionArguments, ImageCommand, ImageEncryptArguments, ImagePushArguments};
pub(crate) use self::kbs::{
    KbsAdministration, KbsAttestArguments, KbsCommand, KbsGetArguments, KbsServer, KbsSetPolicyArguments, KbsShown,
    KeyArgument, PolicyArgument,
};
pub(crate) use self::keys::{
    AkAnswerArguments, AkChallengeArguments, AkCommand, AkEnrollArguments, AkRequestArguments, AkShowArguments,
    EkArgument, SimulatedCommand, SimulatedPkiArguments,
};
pub(crate) use self::launch::{ModeArgument, RunArguments, StopArguments};
pub(crate) use self::log::{LogCommand, LogExportArguments, LogFormat, LogShowArguments, LogVerifyArguments};
pub(crate) use self::platform::{EvidenceCollectArguments, EvidenceDetectArguments, PlatformArguments};
pub(crate) use self::policy::{PolicyCommand, PolicyTestArguments};
pub(crate) use self::reference::{
    ComputeCommand, ComputeSnpArguments, ComputeTpmArguments, ReferenceCommand, ReferenceFormat,
    ReferenceShowArguments, ReferenceSignArguments, ReferenceVerifyArguments,
};
pub(crate) use self::store::{ImagesArguments, MountArguments, PruneArguments, PullArguments, UmountArguments};

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
    /// Print the digest of a pod's pause bundle, as `[kata] pause_digest` and the attestor's `[policy] pause` want it
    PauseDigest {
        /// The bundle: a directory with config.json and rootfs, owners and modes as in the guest image
        #[arg(value_name = "DIR")]
        bundle: PathBuf,
    },
    /// Pull an image into a store: verified and measured while it streams
    Pull(PullArguments),
    /// Mount a pulled image, verified and measured again; needs no network
    Mount(MountArguments),
    /// End a mount
    Umount(UmountArguments),
    /// List what was pulled into a store
    Images(ImagesArguments),
    /// Remove from a store what no pulled image needs
    Prune(PruneArguments),
    /// Keys, golden values and revocations
    #[command(subcommand)]
    Golden(GoldenCommand),
    /// Platform reference values: what an attestor expects evidence to have measured
    #[command(subcommand)]
    Reference(ReferenceCommand),
    /// Decide a launch from files, as the attestor would
    Appraise(Box<AppraiseArguments>),
    /// Policies, tried before they count
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Small reproducible images
    #[command(subcommand)]
    Image(ImageCommand),
    /// The guest's event log
    #[command(subcommand)]
    Log(LogCommand),
    /// The attestor's audit log: what it decided, gave out and was changed by
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Explain a reason code, or a decision or refusal that the attestor has recorded
    Explain(ExplainArguments),
    /// List containers
    List(AgentArguments),
    /// Stop a container
    Stop(StopArguments),
    /// What the agent is and how far its log has come
    Status(AgentArguments),
    /// Evidence: the agent's over a challenge, or what is in files
    Evidence(EvidenceArguments),
    /// Any key broker of the KBS protocol: resources, passports, policies
    #[command(subcommand)]
    Kbs(KbsCommand),
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

/// Whose images are taken.
#[derive(Debug, Clone, Args)]
pub(crate) struct PolicyArguments {
    /// Signature policy in containers-policy.json terms; without one every image is taken, signed or not
    /// (insecureAcceptAnything): this machine is your own, guests have their measured policy
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
}

/// An image whose layers are read.
#[derive(Debug, Clone, Args)]
pub(crate) struct SourceArguments {
    /// The image, in a registry (registry/repository:tag or @sha256:digest) or in an OCI layout (oci:DIR or
    /// oci:DIR:NAME)
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    /// The image's name where REF is in a layout
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) named: Option<String>,
    #[command(flatten)]
    pub(crate) access: AccessArguments,
}

/// What it takes to read an image's layers.
#[derive(Debug, Clone, Args)]
pub(crate) struct AccessArguments {
    #[command(flatten)]
    pub(crate) decryption: DecryptionArguments,
    #[command(flatten)]
    pub(crate) signatures: PolicyArguments,
    #[command(flatten)]
    pub(crate) registry: RegistryArguments,
}

/// How the registry is reached.
#[derive(Debug, Clone, Args)]
pub(crate) struct RegistryArguments {
    /// Ask this registry, without a name the reference's own, over plain HTTP; may be repeated
    #[arg(long, value_name = "HOST[:PORT]", num_args = 0..=1, default_missing_value = "")]
    pub(crate) plain_http: Vec<String>,
    /// Docker-style file with credentials
    #[arg(long, value_name = "FILE")]
    pub(crate) auth_file: Option<PathBuf>,
    /// PEM file with TLS roots to trust beside the system's; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) registry_root: Vec<PathBuf>,
    /// registries.conf with mirrors, other locations and blocked registries
    #[arg(long, value_name = "FILE")]
    pub(crate) registries_conf: Option<PathBuf>,
    /// registries.d file in JSON: where OpenPGP signatures lie
    #[arg(long, value_name = "FILE")]
    pub(crate) registries_d: Option<PathBuf>,
    /// Proxy (http://host:port or https://host:port) that every request goes through; the environment is not asked
    #[arg(long, value_name = "URL")]
    pub(crate) registry_proxy: Option<String>,
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

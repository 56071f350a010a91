//! Reason codes: why something was refused, in words that stay stable.
//!
//! A code once released keeps its meaning. `docs/reason-codes.md` is generated from this table
//! (`cargo xtask docs`), and a test compares the two.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What kind of ending a code stands for; decides `tclctl`'s exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// A check failed: `NOT verified`, exit status 77.
    Refused,
    /// A service that is needed could not be reached or did not answer in time: 69.
    Unavailable,
    /// Reading or writing failed: 74.
    Io,
    /// A fault of ours or of the container runtime: 70.
    Fault,
}

impl Class {
    /// `tclctl`'s exit status for this class.
    #[must_use]
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::Refused => 77,
            Self::Unavailable => 69,
            Self::Io => 74,
            Self::Fault => 70,
        }
    }
}

/// One row of the table of reason codes.
#[derive(Debug)]
pub struct Entry {
    /// `area.what`.
    pub code: &'static str,
    /// How a launch ends with it.
    pub class: Class,
    /// The check that gives this code when it fails.
    pub check: &'static str,
    /// What its reader can do.
    pub remedy: &'static str,
}

/// A stable reason code, always one of [`ALL`].
#[derive(Clone, Copy)]
pub struct Code(&'static Entry);

impl Code {
    /// The code as text, such as `golden.rollback`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0.code
    }

    /// How a launch ends with it.
    #[must_use]
    pub const fn class(self) -> Class {
        self.0.class
    }

    /// The check behind it.
    #[must_use]
    pub const fn check(self) -> &'static str {
        self.0.check
    }

    /// What its reader can do.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        self.0.remedy
    }

    /// Finds a code by its text; unknown text has no code.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        ALL.iter().find(|entry| entry.code == text).map(Code)
    }
}

impl PartialEq for Code {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Code {}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("unknown reason code"))
    }
}

/// Who made the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The agent in the guest.
    Guest,
    /// The remote attestor.
    Attestor,
    /// A person's command outside a launch.
    Command,
}

/// One refusal, explained. Its text starts with `NOT verified` when a check failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// What was checked.
    pub check: String,
    /// What it was checked on: an image, a digest, a container, a register.
    pub subject: String,
    /// What would have passed.
    pub expected: String,
    /// What was found.
    pub actual: String,
    /// What can be done.
    pub remedy: String,
    /// Who made the check.
    pub source: Source,
}

impl Refusal {
    /// A refusal made in the guest, with the table's check and remedy.
    #[must_use]
    pub fn new(code: Code, subject: impl Into<String>, expected: impl Into<String>, actual: impl Into<String>) -> Self {
        Self {
            code,
            check: code.check().to_owned(),
            subject: subject.into(),
            expected: expected.into(),
            actual: actual.into(),
            remedy: code.remedy().to_owned(),
            source: Source::Guest,
        }
    }

    /// The same refusal, made by `source`.
    #[must_use]
    pub fn by(mut self, source: Source) -> Self {
        self.source = source;
        self
    }
}

impl fmt::Display for Refusal {
    /// One line whatever the fields hold: control characters are shown escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lead = if self.code.class() == Class::Refused { "NOT verified" } else { "failed" };
        let line = format!(
            "{lead}: {} {}: expected {}, got {}; {}",
            self.code, self.subject, self.expected, self.actual, self.remedy
        );
        for c in line.chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                fmt::Write::write_char(f, c)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

macro_rules! codes {
    ($($name:ident $code:literal $class:ident $check:literal $remedy:literal)*) => {
        /// Every code there is, in the order of the documentation.
        pub static ALL: &[Entry] = &[$(Entry { code: $code, class: Class::$class, check: $check, remedy: $remedy }),*];

        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Index { $($name),* }

        $(
            #[doc = concat!("`", $code, "`: ", $check)]
            #[allow(clippy::indexing_slicing)] // the index is a constant, checked when compiling
            pub const $name: Code = Code(&ALL[Index::$name as usize]);
        )*
    };
}

codes! {
    GOLDEN_MISSING "golden.missing" Refused "a golden value is stored for the image's platform manifest" "sign and push one: tclctl golden push REF --key KEY"
    GOLDEN_MALFORMED "golden.malformed" Refused "the golden value is a DSSE envelope over an in-toto Statement of the known type" "push it again with this release's tclctl golden push"
    GOLDEN_SIGNATURE "golden.signature" Refused "a signature of the envelope verifies under the signer's key" "the envelope was altered or the key is another one with the same name: sign again"
    GOLDEN_SIGNER "golden.signer" Refused "the signer is pinned by the measured configuration" "add the signer's public key to the measured configuration, or sign with a pinned key"
    GOLDEN_SUBJECT "golden.subject" Refused "the signed subject is this platform manifest" "the envelope belongs to another image: push one for this manifest"
    GOLDEN_EXPIRED "golden.expired" Refused "the golden value has not expired" "sign again with a later expiry"
    GOLDEN_ROLLBACK "golden.rollback" Refused "the version is not below one already accepted, nor below the configured minimum" "the registry serves an old image or golden value: push a newer version"
    GOLDEN_CONFLICT "golden.conflict" Refused "one version of a series has one content" "two golden values carry the same version: sign the right one with a higher version"
    GOLDEN_REVOKED "golden.revoked" Refused "the golden value is not on its signer's revocation list" "move to an image that is not revoked"
    GOLDEN_ENVIRONMENT "golden.environment" Refused "the golden value was signed for this environment" "sign it with --environment as the guest is configured"
    GOLDEN_UNAVAILABLE "golden.unavailable" Unavailable "the image storage answers whether there is a golden value" "check the registry or key broker; nothing is accepted while it is out of reach"
    IMAGE_REFERENCE "image.reference" Refused "the image reference is well formed" "use registry/repository:tag or registry/repository@sha256:digest"
    IMAGE_PLAIN_HTTP "image.plain_http" Refused "plain HTTP is used only for hosts the configuration names" "serve the registry over TLS, or name the host in the measured configuration"
    IMAGE_NOT_FOUND "image.not_found" Refused "the registry has the image" "check the repository, tag and digest"
    IMAGE_DENIED "image.denied" Refused "the registry lets us read the image" "check the credentials in the auth file"
    IMAGE_REGISTRY "image.registry" Unavailable "the registry answers in time and without a server error" "check the registry and the network; the launch may be tried again"
    IMAGE_MANIFEST_DIGEST "image.manifest_digest" Refused "the manifest's bytes have the digest they were asked for by" "the registry or a mirror serves other bytes: do not trust it"
    IMAGE_MANIFEST "image.manifest" Refused "the manifest, index or config is valid OCI and within limits" "build and push the image again"
    IMAGE_PLATFORM "image.platform" Refused "the index holds a manifest for this platform" "push an image for this platform"
    IMAGE_BLOB_DIGEST "image.blob_digest" Refused "every blob's bytes have the digest in the manifest" "the blob was altered in the registry or on the way: push it again"
    IMAGE_BLOB_SIZE "image.blob_size" Refused "every blob has exactly the size in the manifest" "the blob was cut or lengthened: push it again"
    IMAGE_DIFF_ID "image.diff_id" Refused "every unpacked layer has the diffID in the image's config" "the image is inconsistent: build it again"
    IMAGE_LAYER_FORMAT "image.layer_format" Refused "every layer is a tar archive we can unpack exactly" "build the layer again with another tool"
    IMAGE_UNSAFE "image.unsafe" Refused "no layer entry reaches outside its directory or sets reserved attributes" "do not run this image"
    IMAGE_LIMIT "image.limit" Refused "the image is within the configured limits" "raise the limit in the measured configuration if the image is meant to be so large"
    IMAGE_ZSTD_WINDOW "image.zstd_window" Refused "no zstd layer needs a larger window than there is memory for" "compress the layer with a smaller window (without --long or --ultra), or raise the limit in the measured configuration"
    IMAGE_SIGNATURE "image.signature" Refused "the signature policy accepts the image" "sign the image with a key the policy names, or change the measured policy"
    IMAGE_BLOCKED "image.blocked" Refused "the registry configuration does not block the image's location" "use another location, or change the measured registry configuration"
    IMAGE_KEY "image.key" Refused "a key for every encrypted layer can be had" "give the guest the private key, or store the layer's key with the key broker and allow its release"
    IMAGE_DECRYPT "image.decrypt" Refused "every encrypted layer decrypts under its key and is authentic" "the layer was altered or encrypted with another key: encrypt and push it again"
    IMAGE_CONFIG "image.config" Refused "the image's config is the signed one" "the image is not the one that was signed"
    IMAGE_LAYER "image.layer" Refused "the image's layers are the signed ones" "the image is not the one that was signed"
    IMAGE_ROOTFS "image.rootfs" Refused "the measured root file system is the signed one" "the unpacked files differ from what was signed"
    POLICY_PROCESS "policy.process" Refused "arguments, environment, user and mounts are within the signed process policy" "ask for what the golden value allows, or sign a golden value that allows this"
    POLICY_MODE "policy.mode" Refused "the measured configuration permits this mode" "use a permitted mode"
    POLICY_BOOT_STATE "policy.boot_state" Refused "the guest booted in a state the measured configuration names" "local mode needs secure or measured boot; use remote mode otherwise"
    POLICY_GATE "policy.gate" Refused "the policy gate allows this request" "the measured configuration must allow the method for this caller"
    POLICY_INVALID "policy.invalid" Refused "the policy is Rego of package agent_policy, at most 8 MiB" "correct the policy; the one in force stays"
    POLICY_PAUSE "policy.pause" Refused "the pause container's bundle is one that configuration and policy pin" "pin the digest of the guest image's pause bundle, or use the guest image that has the pinned one"
    POLICY_EXEC "policy.exec" Refused "a command executed in a container has no more rights than the container's measured process" "execute it as the container's own user, or let the policy allow this command"
    POLICY_ROOTFS "policy.rootfs" Refused "a container's root file system is an image that the guest pulls; the sandbox container's is the pause bundle" "let the runtime have the guest pull images (force_guest_pull); no root file system of the host is used"
    POLICY_CAPABILITIES "policy.capabilities" Refused "capabilities are the usual ones, or named by the measured configuration" "drop the capability, or name it in [kata] capabilities of the measured configuration"
    POLICY_DEVICES "policy.devices" Refused "devices are named by the measured configuration" "remove the device, or name it in [kata] devices of the measured configuration"
    POLICY_MOUNT "policy.mount" Refused "a mount is one that a pod's container can have, from the shared directory or a storage of its sandbox" "use volumes that are copied into the guest or mounted in it; propagation out of a container is not offered"
    POLICY_SPEC "policy.spec" Refused "the runtime specification asks for nothing that containers here do not have" "remove the field from the pod, or from what the container runtime adds to it"
    POLICY_REGISTER "policy.register" Refused "the measurement register is of a kind the policy names" "use a platform with such a register"
    POLICY_INITDATA "policy.initdata" Refused "initdata brings only what the measured configuration lets it bring, in its form" "take the file out of the initdata, correct it, or name it in [initdata] allow of the measured configuration"
    POLICY_ENVIRONMENT "policy.environment" Refused "nothing simulated or of development is shown to a production configuration" "use real hardware evidence, or a development configuration"
    POLICY_POSTED "policy.posted" Refused "policies may be posted to this attestor" "set [policy] posted = true in the attestor's configuration, or change the policy's file"
    POLICY_TEST "policy.test" Refused "every case of a policy's tests gives what it says" "correct the policy, or the case; `tclctl policy test` tells what each gave"
    EVIDENCE_MALFORMED "evidence.malformed" Refused "the evidence is well formed" "the attester and the attestor are of incompatible releases"
    EVIDENCE_UNAVAILABLE "evidence.unavailable" Fault "the platform gives evidence" "check the TPM or TEE device"
    EVIDENCE_NONCE "evidence.nonce" Refused "the evidence is bound to the attestor's nonce, the session key and the log head" "the evidence is old or from another session"
    EVIDENCE_SIGNATURE "evidence.signature" Refused "the evidence's signature verifies" "the evidence was altered"
    EVIDENCE_CHAIN "evidence.chain" Refused "the evidence's key chains to a trusted root and is valid now" "configure the platform's endorsements, or do not trust it"
    EVIDENCE_COLLATERAL "evidence.collateral" Refused "there is collateral for the platform that its vendor signed and that counts now" "fetch the platform's collateral again, or check the clock"
    EVIDENCE_AK "evidence.ak" Refused "the attestation key is enrolled" "enrol the TPM's attestation key with the attestor"
    EVIDENCE_PCR "evidence.pcr" Refused "the quote covers exactly SHA-256 PCRs 0-23 and their digest" "the attester and the attestor are of incompatible releases"
    EVIDENCE_ENDORSEMENT "evidence.endorsement" Refused "the endorsement is of the chip, TCB and kind of key that the evidence names" "give the endorsement that the vendor issued for this chip and TCB"
    EVIDENCE_CRL "evidence.crl" Refused "the revocation list is signed by the root and current" "fetch the vendor's revocation list again"
    EVIDENCE_REVOKED "evidence.revoked" Refused "no key of the evidence's chain is revoked" "do not trust the platform until its vendor has issued new keys"
    EVIDENCE_POLICY "evidence.policy" Refused "the evidence is of a kind, and the platform set up in a way, that the policy accepts" "start the guest with the required launch policy and firmware, on a platform that the policy names"
    EVIDENCE_DEBUG "evidence.debug" Refused "the host cannot debug the guest" "start the guest with debugging off in its launch policy"
    EVIDENCE_MIGRATION "evidence.migration" Refused "the guest cannot be migrated and has no migration agent" "start the guest with migration off in its launch policy"
    EVIDENCE_VMPL "evidence.vmpl" Refused "the report was asked for at the expected privilege level" "attest from that privilege level, or expect the level that the guest runs at"
    EVIDENCE_TCB "evidence.tcb" Refused "firmware and microcode are not below the policy's minimum" "update the platform's firmware and microcode"
    EVIDENCE_CHIP "evidence.chip" Refused "the chip, or the provider whose key signed for it, is one that the policy lists" "list the chip or provider, or use a listed one"
    EVIDENCE_MEASUREMENT "evidence.measurement" Refused "the launch measurement is one that the policy lists" "start the guest from the measured image, or list its measurement"
    EVIDENCE_BINDING "evidence.binding" Refused "the hardware report vouches for the key and data shown with it" "the parts of the evidence do not belong together"
    EVIDENCE_INITDATA "evidence.initdata" Refused "the initdata given is the one bound into the evidence" "start the guest with the digest of its initdata, and attach that initdata"
    EVIDENCE_INITDATA_ALGORITHM "evidence.initdata_algorithm" Refused "the initdata's algorithm fits the platform's field without cutting" "use sha256 for SNP, sha384 for TDX"
    EVIDENCE_GUEST "evidence.guest" Refused "the guest's identity follows from its evidence and its first record" "the log belongs to another guest"
    EVIDENCE_APPRAISAL "evidence.appraisal" Refused "the appraisal policy grades the verified evidence affirming, or no worse than warning" "give the attestor reference values for what booted, or correct the platform; the refusal names what the policy found"
    ENROL_MALFORMED "enrol.malformed" Refused "request, challenge, answer and secret of an enrolment are well formed" "make the file again with this release's tclctl ak"
    ENROL_KEY "enrol.key" Refused "the key is a restricted signing key that was made in its TPM and never leaves it" "enrol the key that tclctl ak request names"
    ENROL_ENDORSEMENT "enrol.endorsement" Refused "the endorsement certificate is a TPM's, valid now, and chains to a manufacturer's root that was given" "give the roots and intermediates of the TPM's manufacturer, or do not trust the TPM"
    ENROL_ANSWER "enrol.answer" Refused "the TPM opened the challenge that was made for this key" "begin again with tclctl ak request; the key may not be in that TPM"
    REFERENCE_MALFORMED "reference.malformed" Refused "reference values are a document of the known form in a DSSE envelope, or a CoRIM that is understood" "sign them again with this release's tclctl reference sign"
    REFERENCE_UNSIGNED "reference.unsigned" Refused "reference values are signed" "sign them: tclctl reference sign; a development attestor may name the file in [reference] unsigned"
    REFERENCE_SIGNATURE "reference.signature" Refused "the signature over reference values verifies under the signer's key" "the file was altered, or the key is another one of the same name: sign again"
    REFERENCE_SIGNER "reference.signer" Refused "reference values are signed by a listed signer in its own name" "add the signer to [[reference.signer]], or sign with a listed key"
    REFERENCE_EXPIRED "reference.expired" Refused "reference values are within their time" "sign them again with a later expiry and a higher version, or check the clock"
    REFERENCE_ROLLBACK "reference.rollback" Refused "the version of reference values is not below one already accepted, nor below the configured minimum" "give the attestor the newest version of the series"
    REFERENCE_CONFLICT "reference.conflict" Refused "one version of a series of reference values has one content" "two documents carry the same version: sign the right one with a higher version"
    LOG_WRITE "log.write" Io "the event log can be written" "free space in the agent's state directory"
    LOG_POISONED "log.poisoned" Refused "log and register agree" "the guest can launch nothing more: start a new one"
    LOG_MALFORMED "log.malformed" Refused "the event log is strictly well formed" "the log was altered"
    LOG_DIGEST "log.digest" Refused "every record's digest is that of its bytes" "the log was altered"
    LOG_REPLAY "log.replay" Refused "the log's replay equals the register" "records were dropped, repeated, swapped or altered, or something else extended the register"
    LOG_REGRESS "log.regress" Refused "a guest's history only grows" "a shorter history was shown: treat the guest as compromised"
    LOG_FORK "log.fork" Refused "a guest has one history" "a second history was shown: treat the guest as compromised"
    LOG_GAP "log.gap" Refused "records arrive without a gap" "send the log from the attestor's count"
    LOG_FULL "log.full" Refused "the log holds at most 65,536 records" "start a new guest"
    LOG_QUEUE_FULL "log.queue_full" Refused "the queue of records not yet delivered has room" "bring the attestor back within reach"
    LOG_SEALED "log.sealed" Refused "nothing is launched after Seal" "start a new guest"
    LOG_RECEIPT "log.receipt" Refused "the attestor's receipt names this guest, count and head, and follows the last one" "the attestor is another one, or it lost its store"
    REGISTER_EXTEND "register.extend" Refused "the measurement register can be extended" "check the TPM or TEE device"
    REGISTER_UNAVAILABLE "register.unavailable" Fault "the measurement register can be read" "check the TPM or TEE device"
    REGISTER_START "register.start" Refused "the register starts at zero or at the firmware log's replay of it" "choose a register that nothing else extends"
    ATTESTOR_UNAVAILABLE "attestor.unavailable" Unavailable "the attestor answers in time and without a server error" "check the attestor and the network; the launch may be tried again"
    ATTESTOR_PROTOCOL "attestor.protocol" Refused "the attestor's answer is well formed and of the configured kind" "check that the address is the attestor's"
    ATTESTOR_SESSION "attestor.session" Refused "the session's challenge and token are ours, unexpired and used once" "attest again"
    ATTESTOR_NONCE "attestor.nonce" Refused "the answer names the nonce of this request" "the answer is a replay: treat the path to the attestor as hostile"
    ATTESTOR_SIGNATURE "attestor.signature" Refused "the answer is signed by the attestor's pinned key" "pin the attestor's key in the measured configuration, or distrust the address"
    ATTESTOR_VERDICT "attestor.verdict" Refused "the verdict names this guest, container, image and log" "the answer belongs to another launch"
    ATTESTOR_DENIED "attestor.denied" Refused "the caller may ask this of the attestor" "check the credentials or the resource policy"
    ATTESTOR_ROLE "attestor.role" Refused "the administrator has the role that this needs" "give the credential the role in [admin], or use another"
    ATTESTOR_AUDIT "attestor.audit" Refused "the attestor's audit log grew out of the one it signed before" "its store was edited, rolled back or forked: run tclctl audit verify, and restore the store or take the attestor away"
    ATTESTOR_RATE "attestor.rate" Unavailable "one source asks no more often than the attestor's limit" "wait as long as retry-after says, or raise [limits]"
    ATTESTOR_NOT_FOUND "attestor.not_found" Refused "the attestor has the resource" "store the resource first"
    STORE_FULL "store.full" Io "there is room for the image" "enlarge the image store"
    STORE_IO "store.io" Io "the image store can be read and written" "check the image store's device"
    STORE_QUOTA "store.quota" Io "the image fits into the store's quota beside the layers in use" "raise the quota, or end containers whose images are no longer needed"
    STORE_LAYOUT "store.layout" Fault "the kernel can mount the configured layout" "load erofs, overlay and loop, or configure the layout tree-v1"
    STORE_CORRUPT "store.corrupt" Refused "a stored layer is what was measured when it was stored" "the layer is pulled again at the next launch"
    STORE_UNENFORCED "store.unenforced" Refused "stored layers lie in guest memory or beneath dm-verity" "put image_dir on tmpfs or ramfs, or use the layout erofs-v1 with dm-verity"
    STORE_DEVICE "store.device" Fault "the disk that the image store is configured to lie on is there once, large enough, and can be encrypted and formatted" "attach one disk with that serial; the guest's log says what failed"
    RUNTIME_BUNDLE "runtime.bundle" Fault "the bundle can be laid out from the image and the request" "check user, working directory and mounts"
    RUNTIME_CREATE "runtime.create" Fault "the runtime creates the container" "the runtime's message says why"
    RUNTIME_START "runtime.start" Fault "the runtime starts the container" "the runtime's message says why"
    RUNTIME_UNAVAILABLE "runtime.unavailable" Fault "the configured OCI runtime can be opened and executed" "install runc or configure another runtime"
    RUNTIME_CONTAINER "runtime.container" Fault "the container is known and the request fits its state" "list the containers and their states"
    RUNTIME_EXEC "runtime.exec" Fault "the runtime executes the command in the container" "the runtime's message says why: most often the command is not in the image"
    RUNTIME_PROCESS "runtime.process" Fault "the container's process is known and the request fits it" "a process is forgotten when its end was told; use another exec id"
    RUNTIME_INTERRUPTED "runtime.interrupted" Fault "the agent lived until the launch had ended" "the agent was ended in the middle of the launch: launch again"
    AGENT_UNAVAILABLE "runtime.agent" Unavailable "the agent answers on its socket" "start guest-agent, or name its socket with --agent"
    BOOT_PARAMETER "boot.parameter" Fault "the agent's parameters on the kernel's command line can be used" "correct the parameter on the guest's command line"
    BOOT_INITDATA "boot.initdata" Refused "at most one disk carries initdata, and it is well formed" "make the initdata again; attach one disk with it"
    BOOT_IO "boot.io" Fault "the guest's first process can set the guest up" "check the guest image and its kernel"
    BOOT_ROOT "boot.root" Refused "a disk holds the root file system whose dm-verity root hash is on the command line, unaltered" "attach the root image that was built with this kernel and initrd"
    KATA_METHOD "kata.method" Fault "the agent offers the method" "the method has no place in a confidential guest, or use a newer agent"
    KATA_MESSAGE "kata.message" Fault "the call is a well-formed message of its method" "the shim and the agent are of incompatible releases"
    KATA_ORDER "kata.order" Fault "a guest has one sandbox, which is made before everything in it" "the shim's calls are out of order"
    KATA_BUSY "kata.busy" Unavailable "the calls in flight are within their bounds" "the host has too many calls or too much data in flight: wait for answers"
    SANDBOX_COPY_PATH "sandbox.copy_path" Refused "a copied file's path stays beneath the shared directory and meets no link" "copy to a plain path beneath shared/containers"
    SANDBOX_COPY_FILE "sandbox.copy_file" Refused "a copied file's kind, mode, owner, size and offset can be, and are within the limits" "copy fewer or smaller files, in order, without special mode bits"
    SANDBOX_STORAGE "sandbox.storage" Refused "the storage's driver is permitted by the measured configuration, its options are known ones and its mount point is free" "permit the driver by name, or ask for less"
    SANDBOX_PATH "sandbox.path" Refused "a path the host names stays beneath the sandbox's directory and meets no link" "name a plain path beneath the sandbox's directory"
    SANDBOX_DEVICE "sandbox.device" Unavailable "the device that a storage or an interface names appears in time" "check that the host attached the device"
    SANDBOX_REQUEST "sandbox.request" Refused "names, addresses and values of a sandbox request are well formed and permitted" "check the value; what is off by default must be permitted in the measured configuration"
    SANDBOX_SYSTEM "sandbox.system" Fault "the kernel does what the sandbox needs: mounts, namespaces, network, files" "the message says which step failed"
}

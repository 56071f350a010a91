use super::*;
use crate::tsm::fake::FakeConfigfs;

/// A machine's file system.
struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { dir: tempfile::tempdir().unwrap() };
        machine.put(OSRELEASE, b"6.16.3-test\n");
        machine
    }

    fn put(&self, path: &str, content: &[u8]) {
        let path = beneath(self.dir.path(), path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// With a driver that makes reports.
    fn driven(&self, provider: &'static str) -> Vec<Platform> {
        let root = beneath(self.dir.path(), tsm::ROOT);
        std::fs::create_dir_all(&root).unwrap();
        let fake = FakeConfigfs::new(&root, provider, Box::new(|_, _| Vec::new()));
        let found = Detector::with(self.dir.path(), fake.tsm(), None).all();
        assert_eq!(std::fs::read_dir(root).unwrap().count(), 0, "nothing is left there");
        found
    }

    fn plain(&self) -> Vec<Platform> {
        Detector::new(self.dir.path(), None).all()
    }
}

fn usable(platforms: &[Platform]) -> Vec<&'static str> {
    platforms.iter().filter(|platform| platform.usable).map(|platform| platform.kind).collect()
}

fn of<'p>(platforms: &'p [Platform], kind: &str) -> &'p Platform {
    platforms.iter().find(|platform| platform.kind == kind).unwrap()
}

#[test]
fn a_machine_with_nothing_names_every_place_that_was_looked_at() {
    let machine = Machine::new();
    let found = machine.plain();
    assert_eq!(
        found.iter().map(|platform| platform.kind).collect::<Vec<_>>(),
        ["tpm", "snp", "tdx", "az-snp-vtpm", "az-tdx-vtpm"]
    );
    assert!(usable(&found).is_empty());
    for (kind, place) in [
        ("tpm", "/dev/tpmrm0"),
        ("snp", sev::DEVICE),
        ("tdx", MEASUREMENTS),
        ("tdx", tsm::ROOT),
        ("az-snp-vtpm", "/dev/tpmrm0"),
    ] {
        let place = beneath(machine.dir.path(), place).display().to_string();
        let missing = of(&found, kind).missing();
        assert!(missing.contains(&place) && missing.contains("not there"), "{kind}: {missing}");
    }
    assert!(
        of(&found, "snp").findings.iter().any(|finding| finding.what == "kernel" && finding.found == "6.16.3-test")
    );
}

#[test]
fn a_tdx_guest_has_registers_and_reports_of_its_driver() {
    let machine = Machine::new();
    machine.put(&format!("{MEASUREMENTS}/rtmr3:sha384"), &[0; 48]);
    assert!(of(&machine.plain(), "tdx").missing().contains("configfs-tsm"));
    let found = machine.driven(PROVIDER_TDX);
    assert_eq!(usable(&found), ["tdx"]);
    let log = of(&found, "tdx").findings.iter().find(|finding| finding.what == "firmware's log").unwrap();
    assert_eq!(log.fits, None, "a TD without a log can be attested");
    machine.put(CCEL, &[0; 7]);
    assert!(of(&machine.driven(PROVIDER_TDX), "tdx").findings.iter().any(|finding| finding.found == "7 bytes"));
    let other = machine.driven(PROVIDER_SNP);
    assert!(of(&other, "tdx").missing().contains("reports by sev_guest, not by tdx_guest"));
    machine.put(&format!("{MEASUREMENTS}/rtmr3:sha384"), &[0; 47]);
    assert!(of(&machine.driven(PROVIDER_TDX), "tdx").missing().contains("47 bytes, not 48"));
}

#[test]
fn a_kernel_without_registers_is_told_from_no_guest() {
    let machine = Machine::new();
    machine.put(OSRELEASE, b"6.8.0\n");
    let found = machine.driven(PROVIDER_TDX);
    let tdx = of(&found, "tdx");
    assert!(tdx.missing().contains("it needs Linux 6.16") && !tdx.missing().contains("configfs-tsm"));
    assert!(tdx.findings.iter().any(|finding| finding.found == "6.8.0"));
}

#[test]
fn an_snp_guest_has_one_of_two_interfaces_and_the_newer_decides() {
    let machine = Machine::new();
    machine.put(sev::DEVICE, b"");
    assert_eq!(usable(&machine.plain()), ["snp"]);
    assert_eq!(usable(&machine.driven(PROVIDER_SNP)), ["snp"]);
    // What opens the platform asks configfs-tsm where it is there, and does not turn to the device.
    let found = machine.driven(PROVIDER_TDX);
    assert!(usable(&found).is_empty());
    assert!(of(&found, "snp").missing().contains("reports by tdx_guest"));
}

#[test]
fn a_device_that_does_not_answer_is_no_tpm() {
    let machine = Machine::new();
    machine.put("/dev/tpm0", b"");
    let found = machine.plain();
    for kind in ["tpm", "az-snp-vtpm", "az-tdx-vtpm"] {
        let missing = of(&found, kind).missing();
        assert!(missing.contains("/dev/tpm0") && missing.contains("TPM's answer"), "{kind}: {missing}");
    }
    machine.put("/dev/tpmrm0", b"");
    assert!(of(&machine.plain(), "tpm").missing().contains("/dev/tpmrm0"), "the one that others share is asked first");
}

#[test]
fn findings_are_told_to_programs() {
    let found = serde_json::to_value(Machine::new().plain()).unwrap();
    assert_eq!(found[0]["kind"], "tpm");
    assert_eq!(found[0]["usable"], false);
    assert_eq!(found[0]["findings"][0]["fits"], false);
}

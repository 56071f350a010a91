# The appraisal policy where the attestor's configuration names none. It is closed: in production, what is not expected
# is contraindicated, and a contraindicated guest gets neither session nor secret. In development the same is a warning.
# It can assume that the evidence was verified: signatures, nonce, chains, debugging, migration, minimum TCB.
package appraisal

trust_vector := {
	"instance-identity": instance_identity,
	"configuration": configuration,
	"executables": executables,
	"file-system": 0,
	"hardware": hardware,
	"runtime-opaque": runtime_opaque,
	"storage-opaque": 0,
	"sourced-data": 0,
}

# Unless somebody says development, it is production.
default unexpected := {"executables": 96, "hardware": 97}

unexpected := {"executables": 33, "hardware": 32} if input.environment == "development"

# The key is one that a trusted vendor or the enrolment vouches for; of simulated ones nothing is said.
default instance_identity := 0

instance_identity := 2 if not input.simulated

# 2: the log says so too. 3: no log is held of the guest.
default configuration := 96

configuration := 3 if {
	register_counts
	input.init == null
}

configuration := 2 if {
	register_counts
	input.init.register_kind == input.register_told
	input.init.simulated == input.simulated
	environment_fits
}

# Sample evidence has no register. The attestor's configuration let it in by name.
configuration := 33 if {
	input.tee in {"sample", "sampledevice"}
	input.environment == "development"
}

register_counts if input.register_kind in input.registers

environment_fits if input.init.environment == "production"

environment_fits if input.environment == "development"

executables := 3 if boot_is_known

executables := unexpected.executables if not boot_is_known

hardware := 2 if genuine

hardware := 32 if {
	not input.simulated
	not genuine
}

hardware := unexpected.hardware if input.simulated

# The verifier has let pass only levels that its configuration names: any but the newest is worth a warning.
genuine if {
	not input.simulated
	not input.tee in {"tdx", "az-tdx-vtpm"}
}

genuine if {
	not input.simulated
	platform.tcb_status == "UpToDate"
	count(platform.advisories) == 0
}

platform := input.claims if input.tee == "tdx"

platform := input.claims.hardware if input.tee == "az-tdx-vtpm"

# A TPM alone hides no memory.
default runtime_opaque := 0

runtime_opaque := 2 if {
	not input.simulated
	input.tee in {"snp", "tdx", "az-snp-vtpm", "az-tdx-vtpm"}
}

boot_is_known if {
	input.tee == "snp"
	expected("snp.measurement")
}

boot_is_known if {
	input.tee == "tdx"
	every name in ["tdx.mrtd", "tdx.rtmr0", "tdx.rtmr1", "tdx.rtmr2"] { expected(name) }
}

boot_is_known if {
	input.tee == "tpm"
	registers_are_known
}

# The hardware measured the paravisor only; what booted is in its vTPM.
boot_is_known if {
	input.tee == "az-snp-vtpm"
	expected("azure.measurement")
	registers_are_known
}

boot_is_known if {
	input.tee == "az-tdx-vtpm"
	every name in ["azure.tdx.mrtd", "azure.tdx.rtmr0", "azure.tdx.rtmr1", "azure.tdx.rtmr2"] { expected(name) }
	registers_are_known
}

pcrs := [name | input.reference[name]; startswith(name, "tpm.pcr")]

registers_are_known if {
	count(pcrs) > 0
	every name in pcrs { expected(name) }
}

expected(name) if input.measured[name] in input.reference[name]

reasons contains "the platform is SIMULATED" if input.simulated

reasons contains "what booted is not among the reference values" if not boot_is_known

reasons contains "the register is of a kind that does not count, or the log's first record says otherwise" if configuration == 96

reasons contains "the platform's TCB is not up to date" if {
	not input.simulated
	not genuine
}

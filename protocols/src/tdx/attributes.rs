//! TD attributes and XFAM, bit by bit (TDX Module ABI 348551, tables "ATTRIBUTES" and "XFAM").

/// ATTRIBUTES of a trust domain.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TdAttributes(pub u64);

impl TdAttributes {
    /// Bit 0: the host may debug the TD.
    pub const DEBUG: u64 = 1;
    /// Bits 0-7, "TD under debug": with any of them set the TD cannot be trusted.
    pub const TUD: u64 = 0xFF;
    /// Bit 17: bound to service TDs after it was made.
    pub const SERVTD_EXT: u64 = 1 << 17;
    /// Bit 28: no #VE on EPT violations, without which a host can step through the TD's pending pages.
    pub const SEPT_VE_DISABLE: u64 = 1 << 28;
    /// Bit 29: may be moved to another machine by a migration TD.
    pub const MIGRATABLE: u64 = 1 << 29;

    /// Bits that a verifier must refuse: those without a meaning.
    pub const RESERVED: u64 = 0b1110 | 0xFF80 | 0x0780_0000 | 0x3FFF_FFFF << 32;

    /// Bits that have a name; the others are reserved.
    const NAMES: [(u32, &'static str); 13] = [
        (0, "DEBUG"),
        (4, "HGS_PLUS_PROF"),
        (5, "PERF_PROF"),
        (6, "PMT_PROF"),
        (16, "ICSSD"),
        (17, "SERVTD_EXT"),
        (27, "LASS"),
        (28, "SEPT_VE_DISABLE"),
        (29, "MIGRATABLE"),
        (30, "PKS"),
        (31, "KL"),
        (62, "TPA"),
        (63, "PERFMON"),
    ];

    /// Whether any bit of `bits` is set.
    #[must_use]
    pub const fn any(self, bits: u64) -> bool {
        self.0 & bits != 0
    }
}

/// XFAM: processor features whose state the TD may use, as in XCR0 and IA32_XSS.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Xfam(pub u64);

impl Xfam {
    const NAMES: [(u32, &'static str); 16] = [
        (0, "FP"),
        (1, "SSE"),
        (2, "AVX"),
        (5, "AVX512_OPMASK"),
        (6, "AVX512_ZMM_HI256"),
        (7, "AVX512_HI16_ZMM"),
        (8, "PT"),
        (9, "PKRU"),
        (10, "PASID"),
        (11, "CET_U"),
        (12, "CET_S"),
        (13, "HDC"),
        (14, "UINTR"),
        (15, "LBR"),
        (17, "AMX_TILECFG"),
        (18, "AMX_TILEDATA"),
    ];
}

/// `0x10000000 (SEPT_VE_DISABLE)`: the number, the names of its bits, `bit-N` where one has no name.
fn write(f: &mut std::fmt::Formatter<'_>, value: u64, names: &[(u32, &str)]) -> std::fmt::Result {
    write!(f, "{value:#x}")?;
    let mut sign = " (";
    for bit in (0..u64::BITS).filter(|bit| value >> bit & 1 == 1) {
        f.write_str(sign)?;
        sign = " ";
        match names.iter().find(|(number, _)| *number == bit) {
            Some((_, name)) => f.write_str(name)?,
            None => write!(f, "bit-{bit}")?,
        }
    }
    if value == 0 { Ok(()) } else { f.write_str(")") }
}

impl std::fmt::Display for TdAttributes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write(f, self.0, &Self::NAMES)
    }
}

impl std::fmt::Debug for TdAttributes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::fmt::Display for Xfam {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write(f, self.0, &Self::NAMES)
    }
}

impl std::fmt::Debug for Xfam {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

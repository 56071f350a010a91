//! What a host says of interfaces, routes and neighbours, and the values it must be.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::SandboxError;

/// The longest name of an interface.
const MAX_NAME: usize = 15;
/// The least MTU that IPv4 allows, and the most that a packet can have.
const MTU: std::ops::RangeInclusive<u64> = 68..=65_535;

/// An address with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The address.
    pub address: IpAddr,
    /// The prefix, in bits.
    pub length: u8,
}

impl Prefix {
    /// From an address and a prefix length in text, as `IPAddress` messages have them.
    ///
    /// # Errors
    /// [`SandboxError::Request`].
    pub fn of(address: &str, length: &str) -> Result<Self, SandboxError> {
        let address: IpAddr = address.parse().map_err(|_| SandboxError::request("address", "no IP address"))?;
        let length = length.parse().ok().filter(|length| *length <= bits(address));
        let length = length.ok_or_else(|| SandboxError::request("address", "no prefix length"))?;
        Ok(Self { address, length })
    }

    /// From `ADDRESS/LENGTH`; an address alone is that host.
    ///
    /// # Errors
    /// [`SandboxError::Request`].
    pub fn parse(text: &str) -> Result<Self, SandboxError> {
        match text.split_once('/') {
            Some((address, length)) => Self::of(address, length),
            None => Self::of(text, if text.contains(':') { "128" } else { "32" }),
        }
    }

    /// Every address of a family: where a default route leads.
    #[must_use]
    pub const fn everything(v6: bool) -> Self {
        let address = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        Self { address, length: 0 }
    }
}

const fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// A hardware address of an Ethernet device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HardwareAddress(pub [u8; 6]);

impl HardwareAddress {
    /// From six pairs of hexadecimal digits between colons.
    ///
    /// # Errors
    /// [`SandboxError::Request`].
    pub fn parse(text: &str) -> Result<Self, SandboxError> {
        let refused = || SandboxError::request("hardware address", "not six pairs of hexadecimal digits");
        let mut parts = text.split(':');
        let mut address = [0; 6];
        for byte in &mut address {
            let part = parts.next().filter(|part| part.len() == 2 && !part.starts_with('+')).ok_or_else(refused)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| refused())?;
        }
        parts.next().map_or(Ok(Self(address)), |_| Err(refused()))
    }
}

impl fmt::Display for HardwareAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interface {
    /// The name to give it.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<Prefix>,
    /// Its MTU; 0 leaves it.
    pub mtu: u64,
    /// By which it is found.
    pub hardware_address: Option<HardwareAddress>,
    /// Where its device is on PCI, such as `02/01`; empty when it is already there.
    pub device_path: String,
    /// The kind of the host's side, which the guest only hands back.
    pub kind: String,
    /// Kernel flags (`IFF_*`); of a request only `IFF_NOARP` is used.
    pub flags: u32,
}

/// One route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: Prefix,
    /// Through which router; none for what is on the link.
    pub gateway: Option<IpAddr>,
    /// Out of which interface.
    pub device: String,
    /// The address to send from.
    pub source: Option<IpAddr>,
    /// `rtm_scope`: 0 universe, 253 link.
    pub scope: u8,
    /// `rtm_flags`; of a request only `RTNH_F_ONLINK` (4) may be given.
    pub flags: u32,
    /// MTU along this route; 0 for none of its own.
    pub mtu: u32,
}

/// One permanent neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// On which interface.
    pub device: String,
    /// Its hardware address.
    pub hardware_address: HardwareAddress,
}

/// A name the kernel takes, and no path or option anywhere.
pub(super) fn check_name(name: &str) -> Result<(), SandboxError> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let plain = name.bytes().all(known) && !name.starts_with('-') && !matches!(name, "." | "..");
    if name.is_empty() || name.len() > MAX_NAME || !plain {
        return Err(SandboxError::request("interface name", "1 to 15 letters, digits, `-`, `_` and `.`"));
    }
    Ok(())
}

/// The MTU to set, if any.
pub(super) fn check_mtu(mtu: u64) -> Result<Option<u32>, SandboxError> {
    if mtu == 0 {
        return Ok(None);
    }
    let sound = MTU.contains(&mtu).then_some(mtu).and_then(|mtu| u32::try_from(mtu).ok());
    sound.map(Some).ok_or_else(|| SandboxError::request("MTU", "68 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_strictly() {
        assert_eq!(Prefix::parse("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(Prefix::parse("fd00::1").unwrap().length, 128);
        for bad in ["", "/", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "10.0.0.0/-1", "10.0.0.0/8/8", "10.0.0.0/ 8"] {
            assert!(Prefix::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(HardwareAddress::parse("02:00:CA:fe:00:01").unwrap().to_string(), "02:00:ca:fe:00:01");
        for bad in
            ["", "02:00:ca:fe:00", "02:00:ca:fe:00:01:02", "2:0:ca:fe:0:1", "02-00-ca-fe-00-01", "+2:00:00:00:00:00"]
        {
            assert!(HardwareAddress::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_no_paths_and_no_options() {
        for bad in ["", "a/b", "..", ".", "-a", "a b", "abcdefghijklmnop", "e\u{301}"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        check_name("eth0.5").unwrap();
        assert!(check_mtu(67).is_err() && check_mtu(65_536).is_err() && check_mtu(u64::MAX).is_err());
        assert_eq!(check_mtu(0).unwrap(), None);
    }
}

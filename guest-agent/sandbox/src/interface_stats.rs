//! Counters of network interfaces, from `/proc/net/dev`.

use std::path::Path;

use crate::error::SandboxError;

/// The most interfaces that are reported.
const MAX_INTERFACES: usize = 1024;

/// One interface's counters since it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceStats {
    /// The interface.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Errors in receiving.
    pub rx_errors: u64,
    /// Packets dropped in receiving.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Errors in sending.
    pub tx_errors: u64,
    /// Packets dropped in sending.
    pub tx_dropped: u64,
}

/// The counters of every interface but `lo`, beneath the procfs at `proc`.
///
/// # Errors
/// [`SandboxError::System`] when they cannot be read.
pub fn interface_stats(proc: &Path) -> Result<Vec<InterfaceStats>, SandboxError> {
    // Not `proc/net`, which is the network of the process's first thread.
    let text = std::fs::read_to_string(proc.join("thread-self/net/dev"))
        .map_err(SandboxError::system("read the counters of interfaces"))?;
    Ok(parse(&text))
}

/// Reads the kernel's table: two lines of heading, then `NAME: ` and sixteen numbers. Other lines are passed over.
#[must_use]
pub fn parse(text: &str) -> Vec<InterfaceStats> {
    text.lines().skip(2).filter_map(line).filter(|stats| stats.name != "lo").take(MAX_INTERFACES).collect()
}

fn line(line: &str) -> Option<InterfaceStats> {
    // The name may hold a colon, the numbers do not.
    let (name, numbers) = line.rsplit_once(':')?;
    let numbers = numbers.split_ascii_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>().ok()?;
    let &[rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_dropped, ..] =
        numbers.as_slice()
    else {
        return None;
    };
    let name = name.trim_start().to_owned();
    Some(InterfaceStats {
        name,
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:    1000      10    1    2    0     0          0         0     2000      20    3    4    0     0       0          0
eth0:1:       5       6    7    8    0     0          0         0        9      10   11   12    0     0       0          0
";

    #[test]
    fn counters_are_read_by_column() {
        let stats = parse(TABLE);
        assert_eq!(stats.iter().map(|stats| stats.name.as_str()).collect::<Vec<_>>(), ["eth0", "eth0:1"]);
        let eth0 = &stats[0];
        assert_eq!((eth0.rx_bytes, eth0.rx_packets, eth0.rx_errors, eth0.rx_dropped), (1000, 10, 1, 2));
        assert_eq!((eth0.tx_bytes, eth0.tx_packets, eth0.tx_errors, eth0.tx_dropped), (2000, 20, 3, 4));
        assert!(parse("").is_empty());
        assert!(parse("a\nb\nc: 1 2 3\nd: x\n: \n").is_empty());
    }

    #[test]
    fn the_real_table_is_read() {
        interface_stats(Path::new("/proc")).unwrap();
    }
}

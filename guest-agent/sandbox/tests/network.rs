//! The network of a sandbox, in a namespace of each test's own; `ip` says what the kernel then has.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::future::Future;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use protocols::reason;
use sandbox::network::{HardwareAddress, Interface, Neighbour, Network, Prefix, Route};
use sandbox::{Roots, SandboxError, interface_stats};
use sys::namespace::{Namespace, unshare};

const MAC: &str = "02:00:ca:fe:00:01";

/// Runs `test` in a network namespace that has a veth pair, of which `v0` has [`MAC`].
fn in_a_namespace<F: Future<Output = ()>>(test: impl FnOnce(Network) -> F + Send) {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            unshare(&[Namespace::Net]).unwrap();
            ip(&["link", "add", "v0", "address", MAC, "type", "veth", "peer", "name", "v1"]);
            ip(&["link", "set", "v1", "up"]);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let dir = tempfile::tempdir().unwrap();
                let network = Network::open(&Roots::beneath(dir.path()), Duration::from_millis(10)).unwrap();
                test(network).await;
            });
        });
        inside.join().unwrap();
    });
}

fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn eth0() -> Interface {
    Interface {
        name: "eth0".into(),
        addresses: vec![Prefix::parse("10.88.0.5/16").unwrap(), Prefix::parse("fd00::5/64").unwrap()],
        mtu: 1400,
        hardware_address: Some(HardwareAddress::parse(MAC).unwrap()),
        kind: "veth".into(),
        ..Interface::default()
    }
}

fn route(destination: &str, gateway: Option<&str>) -> Route {
    Route {
        destination: Prefix::parse(destination).unwrap(),
        gateway: gateway.map(|address| address.parse().unwrap()),
        device: "eth0".into(),
        source: None,
        scope: if gateway.is_some() { 0 } else { 253 },
        flags: 0,
        mtu: 0,
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, SandboxError>, code: reason::Code) {
    let error = result.expect_err("it passed");
    assert_eq!(error.code(), code, "{error}");
}

/// A service answers on any thread: every call must be able to move between them.
#[test]
fn calls_may_move_between_threads() {
    fn movable<T: Send>(_: &T) {}
    in_a_namespace(|network| async move {
        let (interface, none) = (eth0(), []);
        movable(&network);
        movable(&network.loopback_up());
        movable(&network.interfaces());
        movable(&network.update_interface(&interface));
        movable(&network.routes());
        movable(&network.update_routes(&none));
        movable(&network.add_neighbours(&[]));
    });
}

#[test]
fn an_interface_is_found_by_its_hardware_address_and_made_what_is_asked() {
    in_a_namespace(|network| async move {
        ip(&["addr", "add", "192.0.2.9/24", "dev", "v0"]);
        network.loopback_up().await.unwrap();
        let now = network.update_interface(&eth0()).await.unwrap();
        assert_eq!((now.name.as_str(), now.mtu, now.kind.as_str()), ("eth0", 1400, "veth"));
        assert_eq!(now.hardware_address, eth0().hardware_address);
        for prefix in eth0().addresses {
            assert!(now.addresses.contains(&prefix), "{prefix} in {now:?}");
        }
        let shown = ip(&["addr", "show", "dev", "eth0"]);
        for part in ["inet 10.88.0.5/16", "inet6 fd00::5/64", "mtu 1400", "UP"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert!(!shown.contains("192.0.2.9"), "earlier addresses go: {shown}");
        assert!(ip(&["link", "show", "dev", "lo"]).contains("UP"));

        // The same again, and with another address, changes just that.
        network.update_interface(&eth0()).await.unwrap();
        let moved = Interface { addresses: vec![Prefix::parse("10.88.0.6/16").unwrap()], mtu: 0, ..eth0() };
        let now = network.update_interface(&moved).await.unwrap();
        assert!(now.addresses.contains(&moved.addresses[0]) && !now.addresses.contains(&eth0().addresses[0]));
        assert_eq!(now.mtu, 1400, "0 leaves it");
        assert!(network.interfaces().await.unwrap().iter().all(|interface| interface.name != "lo"));
        let names: Vec<String> =
            interface_stats("/proc".as_ref()).unwrap().into_iter().map(|stats| stats.name).collect();
        assert!(names.contains(&"eth0".to_owned()), "{names:?}");
    });
}

#[test]
fn a_name_that_is_taken_is_freed_and_an_unknown_address_falls_back_to_the_name() {
    in_a_namespace(|network| async move {
        ip(&["link", "set", "v1", "down"]);
        ip(&["link", "set", "v1", "name", "eth0"]);
        let now = network.update_interface(&eth0()).await.unwrap();
        assert_eq!((now.name.as_str(), now.hardware_address), ("eth0", eth0().hardware_address));
        let other = HardwareAddress::parse("02:00:ca:fe:00:99").unwrap();
        let by_name = Interface { hardware_address: Some(other), ..eth0() };
        assert_eq!(network.update_interface(&by_name).await.unwrap().hardware_address, Some(other));
        assert!(ip(&["link", "show", "dev", "eth0"]).contains("02:00:ca:fe:00:99"));
    });
}

#[test]
fn interfaces_that_cannot_be() {
    in_a_namespace(|network| async move {
        for name in ["", "a/b", "../x", "-x", "sixteen_letters_"] {
            let asked = Interface { name: name.into(), ..eth0() };
            refused(network.update_interface(&asked).await, reason::SANDBOX_REQUEST);
        }
        refused(network.update_interface(&Interface { mtu: 1, ..eth0() }).await, reason::SANDBOX_REQUEST);
        refused(network.update_interface(&Interface { mtu: 1 << 32, ..eth0() }).await, reason::SANDBOX_REQUEST);
        let many = vec![Prefix::parse("10.0.0.1/8").unwrap(); 2000];
        refused(network.update_interface(&Interface { addresses: many, ..eth0() }).await, reason::SANDBOX_REQUEST);
        let path = |path: &str| Interface { device_path: path.into(), ..eth0() };
        refused(network.update_interface(&path("../../etc")).await, reason::SANDBOX_REQUEST);
        refused(network.update_interface(&path("02/01")).await, reason::SANDBOX_DEVICE);
        let nobody = Interface { hardware_address: HardwareAddress::parse("02:00:00:00:00:09").ok(), ..eth0() };
        refused(network.update_interface(&nobody).await, reason::SANDBOX_DEVICE);
        let loopback = Interface { name: "lo".into(), hardware_address: None, ..eth0() };
        refused(network.update_interface(&loopback).await, reason::SANDBOX_DEVICE);
        assert!(ip(&["link", "show"]).contains("v0"), "nothing was renamed");
    });
}

#[test]
fn routes_are_replaced_with_those_on_the_link_first() {
    in_a_namespace(|network| async move {
        network.update_interface(&eth0()).await.unwrap();
        ip(&["route", "add", "198.51.100.0/24", "via", "10.88.0.9"]);
        // The gateway is reachable only through the second route, which therefore comes first.
        let onlink = Route { mtu: 1300, ..route("203.0.113.0/24", Some("10.88.0.1")) };
        let default6 = Route { source: Some("fd00::5".parse().unwrap()), ..route("::/0", Some("fd00::1")) };
        let asked = [route("0.0.0.0/0", Some("172.16.0.1")), route("172.16.0.1", None), onlink, default6];
        let now = network.update_routes(&asked).await.unwrap();
        for wanted in &asked {
            let same = |found: &&Route| (found.destination, found.gateway) == (wanted.destination, wanted.gateway);
            let found = now.iter().find(same).unwrap_or_else(|| panic!("{wanted:?} in {now:?}"));
            assert_eq!((found.device.as_str(), found.mtu), ("eth0", wanted.mtu));
        }
        assert_eq!(now.len(), asked.len(), "{now:?}");
        let shown = ip(&["route", "show"]);
        for line in ["default via 172.16.0.1 dev eth0", "172.16.0.1 dev eth0", "10.88.0.0/16 dev eth0 proto kernel"] {
            assert!(shown.contains(line), "{line} in {shown}");
        }
        assert!(shown.contains("mtu 1300") && !shown.contains("198.51.100.0"), "{shown}");
        assert!(ip(&["-6", "route", "show"]).contains("default via fd00::1"));
        assert_eq!(network.routes().await.unwrap().len(), asked.len());
    });
}

#[test]
fn routes_that_cannot_be_change_nothing() {
    in_a_namespace(|network| async move {
        network.update_interface(&eth0()).await.unwrap();
        let sound = [route("172.16.0.0/24", None)];
        let before = network.update_routes(&sound).await.unwrap();
        let v6: IpAddr = "fd00::1".parse().unwrap();
        for bad in [
            Route { device: "eth9".into(), ..route("10.0.0.0/8", None) },
            Route { device: "a/b".into(), ..route("10.0.0.0/8", None) },
            Route { gateway: Some(v6), ..route("10.0.0.0/8", None) },
            Route { source: Some(v6), ..route("10.0.0.0/8", None) },
            Route { flags: 1, ..route("10.0.0.0/8", None) },
            Route { mtu: 1, ..route("10.0.0.0/8", None) },
        ] {
            refused(network.update_routes(&[route("192.168.0.0/16", None), bad]).await, reason::SANDBOX_REQUEST);
        }
        refused(network.update_routes(&vec![route("10.0.0.0/8", None); 2000]).await, reason::SANDBOX_REQUEST);
        assert_eq!(network.routes().await.unwrap(), before);
        refused(network.update_routes(&[route("10.0.0.0/8", Some("1.2.3.4"))]).await, reason::SANDBOX_SYSTEM);
    });
}

#[test]
fn neighbours_are_permanent() {
    in_a_namespace(|network| async move {
        network.update_interface(&eth0()).await.unwrap();
        let neighbour = |address: &str, device: &str, mac: &str| Neighbour {
            address: address.parse().unwrap(),
            device: device.into(),
            hardware_address: HardwareAddress::parse(mac).unwrap(),
        };
        let asked =
            [neighbour("10.88.0.1", "eth0", "02:00:00:00:00:01"), neighbour("fd00::1", "eth0", "02:00:00:00:00:02")];
        network.add_neighbours(&asked).await.unwrap();
        network.add_neighbours(&[neighbour("10.88.0.1", "eth0", "02:00:00:00:00:03")]).await.unwrap();
        let shown = ip(&["neigh", "show", "dev", "eth0"]);
        for line in ["10.88.0.1 lladdr 02:00:00:00:00:03 PERMANENT", "fd00::1 lladdr 02:00:00:00:00:02 PERMANENT"] {
            assert!(shown.contains(line), "{line} in {shown}");
        }
        refused(network.add_neighbours(&[neighbour("10.88.0.1", "eth9", MAC)]).await, reason::SANDBOX_REQUEST);
    });
}

//! The guest's network, as the host describes it: interfaces, routes, neighbours.
//!
//! Nothing here makes the network trusted. It only carries packets; whoever is at the other end is known by keys.

mod types;

use std::collections::HashMap;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType,
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};
use tokio::task::JoinHandle;

pub use self::types::{HardwareAddress, Interface, Neighbour, Prefix, Route};
use self::types::{check_mtu, check_name};
use crate::devices::{Devices, PciPath};
use crate::error::SandboxError;
use crate::roots::Roots;

/// The most interfaces, addresses, routes or neighbours in one request.
const MAX_ITEMS: usize = 1024;
/// `IFF_NOARP`.
const NOARP: u32 = 0x80;
/// `RTNH_F_ONLINK`.
const ONLINK: u32 = 4;

/// A conversation with the kernel about the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Network {
    handle: Handle,
    connection: JoinHandle<()>,
    devices: Devices,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Network {
    /// Opens it; within a tokio runtime. A hot-plugged device may take `timeout` to appear.
    ///
    /// # Errors
    /// [`SandboxError::System`].
    pub fn open(roots: &Roots, timeout: Duration) -> Result<Self, SandboxError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(SandboxError::system("open a routing socket"))?;
        Ok(Self { handle, connection: tokio::spawn(connection), devices: Devices::new(roots, timeout) })
    }

    /// Brings the loopback interface up.
    ///
    /// # Errors
    /// [`SandboxError::System`].
    pub async fn loopback_up(&self) -> Result<(), SandboxError> {
        let links = self.links().await?;
        let loopback = links.iter().find(|link| link.header.flags.contains(LinkFlags::Loopback));
        let index =
            loopback.map(|link| link.header.index).ok_or_else(|| SandboxError::request("lo", "there is none"))?;
        self.set(LinkUnspec::new_with_index(index).up(), "bring lo up").await
    }

    /// Every interface but loopback ones.
    ///
    /// # Errors
    /// [`SandboxError::System`].
    pub async fn interfaces(&self) -> Result<Vec<Interface>, SandboxError> {
        let mut addresses: HashMap<u32, Vec<Prefix>> = HashMap::new();
        let mut stream = Box::pin(self.handle.address().get().execute());
        while let Some(message) = stream.try_next().await.map_err(netlink("list addresses"))? {
            // An IPv4 address is in `Local`; `Address` is then the other end of a point-to-point link.
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let own = local.or_else(|| {
                message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                })
            });
            if let Some(address) = own {
                let prefix = Prefix { address, length: message.header.prefix_len };
                addresses.entry(message.header.index).or_default().push(prefix);
            }
        }
        let links = self.links().await?;
        let others = links.iter().filter(|link| !link.header.flags.contains(LinkFlags::Loopback));
        Ok(others.map(|link| interface(link, addresses.remove(&link.header.index).unwrap_or_default())).collect())
    }

    /// Makes the interface with this hardware address, or else this name, what is asked: down, its addresses
    /// replaced, renamed, MTU, up. Gives what the kernel then has.
    ///
    /// # Errors
    /// [`SandboxError::Request`] for values that cannot be, [`SandboxError::Device`] when there is no such interface,
    /// [`SandboxError::System`] when the kernel refuses; the interface may then be down.
    pub async fn update_interface(&self, asked: &Interface) -> Result<Interface, SandboxError> {
        check_name(&asked.name)?;
        let mtu = check_mtu(asked.mtu)?;
        check_count("addresses", asked.addresses.len())?;
        self.wait_for_device(&asked.device_path).await?;
        let links = self.links().await?;
        let by_address =
            |link: &&LinkMessage| asked.hardware_address.is_some() && hardware(link) == asked.hardware_address;
        let by_name = |link: &&LinkMessage| name(link) == asked.name;
        let plain = || links.iter().filter(|link| !link.header.flags.contains(LinkFlags::Loopback));
        let link = plain().find(by_address).or_else(|| plain().find(by_name)).ok_or_else(|| SandboxError::Device {
            device: asked.hardware_address.map_or_else(|| asked.name.clone(), |address| address.to_string()),
            waited_ms: 0,
        })?;
        let index = link.header.index;
        let change = || LinkUnspec::new_with_index(index);

        self.set(change().down(), "bring the interface down").await?;
        if let Some(HardwareAddress(address)) = asked.hardware_address
            && hardware(link) != asked.hardware_address
        {
            self.set(change().address(address.to_vec()), "set the hardware address").await?;
        }
        self.replace_addresses(index, &asked.addresses).await?;
        if name(link) != asked.name {
            self.make_way(&links, index, &asked.name).await?;
            self.set(change().name(asked.name.as_str()), "rename the interface").await?;
        }
        if let Some(mtu) = mtu {
            self.set(change().mtu(mtu), "set the MTU").await?;
        }
        if asked.flags & NOARP != 0 {
            self.set(change().arp(false), "switch ARP off").await?;
        }
        self.set(change().up(), "bring the interface up").await?;
        let now = self.interfaces().await?.into_iter().find(|interface| interface.name == asked.name);
        let now = now.ok_or_else(|| SandboxError::request("interface", "it is gone"))?;
        Ok(Interface { device_path: asked.device_path.clone(), kind: asked.kind.clone(), ..now })
    }

    /// Waits for the device at a PCI path; an empty one is already there.
    async fn wait_for_device(&self, path: &str) -> Result<(), SandboxError> {
        if path.is_empty() {
            return Ok(());
        }
        let path = PciPath::parse(path).ok_or_else(|| SandboxError::request("device path", "no PCI path"))?;
        let devices = self.devices.clone();
        let waited = tokio::task::spawn_blocking(move || devices.net(&path)).await;
        waited.unwrap_or_else(|error| Err(SandboxError::request("device path", error.to_string()))).map(drop)
    }

    /// Another interface that has the wanted name gets a free one, by its index.
    async fn make_way(&self, links: &[LinkMessage], index: u32, wanted: &str) -> Result<(), SandboxError> {
        let Some(other) = links.iter().find(|link| name(link) == wanted && link.header.index != index) else {
            return Ok(());
        };
        let other = other.header.index;
        let change = || LinkUnspec::new_with_index(other);
        self.set(change().down(), "bring the other interface down").await?;
        self.set(change().name(format!("renamed{other}")), "rename the other interface").await
    }

    async fn replace_addresses(&self, index: u32, wanted: &[Prefix]) -> Result<(), SandboxError> {
        let mut stream = Box::pin(self.handle.address().get().set_link_index_filter(index).execute());
        while let Some(message) = stream.try_next().await.map_err(netlink("list addresses"))? {
            match self.handle.address().del(message).execute().await {
                // The kernel takes an IPv6 link-local address away by itself, and secondaries with their primary.
                Err(error) if is_errno(&error, rustix::io::Errno::ADDRNOTAVAIL) => {}
                other => other.map_err(netlink("remove an address"))?,
            }
        }
        for prefix in wanted {
            let mut add = self.handle.address().add(index, prefix.address, prefix.length).replace();
            if prefix.address.is_ipv6() {
                // The host's network has assigned it; a tentative address could not yet be a route's source.
                add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            }
            add.execute().await.map_err(netlink("add an address"))?;
        }
        Ok(())
    }

    /// The unicast routes of the main table that the kernel did not make by itself.
    ///
    /// # Errors
    /// [`SandboxError::System`].
    pub async fn routes(&self) -> Result<Vec<Route>, SandboxError> {
        let names: HashMap<u32, String> =
            self.links().await?.iter().map(|link| (link.header.index, name(link).to_owned())).collect();
        Ok(self.route_messages().await?.iter().map(|message| route(message, &names)).collect())
    }

    /// Makes `asked` the routes: earlier ones go, those without a gateway come first. Gives what the kernel then has.
    ///
    /// # Errors
    /// [`SandboxError::Request`] for values that cannot be, [`SandboxError::System`] when the kernel refuses.
    pub async fn update_routes(&self, asked: &[Route]) -> Result<Vec<Route>, SandboxError> {
        check_count("routes", asked.len())?;
        let links = self.links().await?;
        let index = |device: &str| {
            check_name(device)?;
            let link = links.iter().find(|link| name(link) == device);
            link.map(|link| link.header.index).ok_or_else(|| SandboxError::request("route", "no such interface"))
        };
        let asked_messages = |direct: bool| {
            let chosen = asked.iter().filter(move |route| route.gateway.is_none() == direct);
            chosen.map(|route| message(route, index(&route.device)?)).collect::<Result<Vec<_>, _>>()
        };
        // All are checked before one is changed.
        let (direct, routed) = (asked_messages(true)?, asked_messages(false)?);
        for old in self.route_messages().await? {
            match self.handle.route().del(old).execute().await {
                Err(error) if is_errno(&error, rustix::io::Errno::SRCH) => {}
                other => other.map_err(netlink("remove a route"))?,
            }
        }
        for new in direct.into_iter().chain(routed) {
            self.handle.route().add(new).replace().execute().await.map_err(netlink("add a route"))?;
        }
        self.routes().await
    }

    /// Adds neighbours that do not age; one that is known is replaced.
    ///
    /// # Errors
    /// [`SandboxError::Request`] for values that cannot be, [`SandboxError::System`] when the kernel refuses.
    pub async fn add_neighbours(&self, neighbours: &[Neighbour]) -> Result<(), SandboxError> {
        check_count("neighbours", neighbours.len())?;
        let links = self.links().await?;
        for neighbour in neighbours {
            check_name(&neighbour.device)?;
            let link = links.iter().find(|link| name(link) == neighbour.device);
            let link = link.ok_or_else(|| SandboxError::request("neighbour", "no such interface"))?;
            let add = self.handle.neighbours().add(link.header.index, neighbour.address);
            let add = add.link_layer_address(&neighbour.hardware_address.0).replace();
            add.execute().await.map_err(netlink("add a neighbour"))?;
        }
        Ok(())
    }

    async fn links(&self) -> Result<Vec<LinkMessage>, SandboxError> {
        self.handle.link().get().execute().try_collect().await.map_err(netlink("list interfaces"))
    }

    async fn set(&self, change: LinkMessageBuilder<LinkUnspec>, step: &'static str) -> Result<(), SandboxError> {
        self.handle.link().set(change.build()).execute().await.map_err(netlink(step))
    }

    async fn route_messages(&self) -> Result<Vec<RouteMessage>, SandboxError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RouteMessageBuilder::<std::net::IpAddr>::new().build();
            query.header.address_family = family;
            let all: Vec<RouteMessage> =
                self.handle.route().get(query).execute().try_collect().await.map_err(netlink("list routes"))?;
            found.extend(all.into_iter().filter(|route| {
                let header = &route.header;
                header.table == RouteHeader::RT_TABLE_MAIN
                    && header.kind == RouteType::Unicast
                    && header.protocol != RouteProtocol::Kernel
            }));
        }
        Ok(found)
    }
}

fn check_count(what: &'static str, count: usize) -> Result<(), SandboxError> {
    if count > MAX_ITEMS {
        return Err(SandboxError::request(what, format!("more than {MAX_ITEMS}")));
    }
    Ok(())
}

fn name(link: &LinkMessage) -> &str {
    let found = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    });
    found.unwrap_or_default()
}

fn hardware(link: &LinkMessage) -> Option<HardwareAddress> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok().map(HardwareAddress),
        _ => None,
    })
}

fn interface(link: &LinkMessage, addresses: Vec<Prefix>) -> Interface {
    let mtu = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(u64::from(*mtu)),
        _ => None,
    });
    Interface {
        name: name(link).to_owned(),
        addresses,
        mtu: mtu.unwrap_or_default(),
        hardware_address: hardware(link),
        device_path: String::new(),
        kind: String::new(),
        flags: link.header.flags.bits(),
    }
}

/// What the kernel has, in our words.
fn route(message: &RouteMessage, names: &HashMap<u32, String>) -> Route {
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    };
    let v6 = message.header.address_family == AddressFamily::Inet6;
    let mut route = Route {
        destination: Prefix { length: message.header.destination_prefix_length, ..Prefix::everything(v6) },
        gateway: None,
        device: String::new(),
        source: None,
        scope: message.header.scope.into(),
        flags: message.header.flags.bits(),
        mtu: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                route.destination.address = ip(to).unwrap_or(route.destination.address);
            }
            RouteAttribute::Gateway(gateway) => route.gateway = ip(gateway),
            RouteAttribute::PrefSource(source) => route.source = ip(source),
            RouteAttribute::Oif(index) => route.device = names.get(index).cloned().unwrap_or_default(),
            RouteAttribute::Metrics(metrics) => {
                let mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
                route.mtu = mtu.unwrap_or_default();
            }
            _ => {}
        }
    }
    route
}

/// What is asked, in the kernel's words.
fn message(route: &Route, index: u32) -> Result<RouteMessage, SandboxError> {
    let refused = |_| SandboxError::request("route", "its addresses are of two families");
    if route.flags & !ONLINK != 0 {
        return Err(SandboxError::request("route", "a flag other than onlink"));
    }
    check_mtu(route.mtu.into())?;
    let mut builder = RouteMessageBuilder::<std::net::IpAddr>::new()
        .destination_prefix(route.destination.address, route.destination.length)
        .map_err(refused)?
        .output_interface(index)
        .scope(RouteScope::from(route.scope));
    if let Some(source) = route.source {
        builder = builder.pref_source(source).map_err(refused)?;
    }
    if let Some(gateway) = route.gateway {
        if gateway.is_ipv4() != route.destination.address.is_ipv4() {
            return Err(SandboxError::request("route", "its addresses are of two families"));
        }
        builder = builder.gateway(gateway).map_err(refused)?;
    }
    let mut message = builder.build();
    if route.flags & ONLINK != 0 {
        message.header.flags |= RouteFlags::Onlink;
    }
    if route.mtu != 0 {
        message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(route.mtu)]));
    }
    Ok(message)
}

fn is_errno(error: &rtnetlink::Error, errno: rustix::io::Errno) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.to_io().raw_os_error() == Some(errno.raw_os_error()))
}

fn netlink(step: &'static str) -> impl FnOnce(rtnetlink::Error) -> SandboxError {
    move |error| {
        let source = match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => std::io::Error::other(other.to_string()),
        };
        SandboxError::System { step: step.to_owned(), source }
    }
}
